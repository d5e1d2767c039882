"""`vmrunner config show|schema` and `db upgrade|current`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vmrunner.cli import exits, output
from vmrunner.cli.output import Column, Format, View
from vmrunner.cli.shell import shell_of

config = typer.Typer(help="The configuration.", no_args_is_help=True)
db = typer.Typer(help="The ledger's database.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]
Row = tuple[str, str, str]


@config.command("show")
def config_show(context: typer.Context, form: Output = Format.TABLE) -> int:
    """Every value, and where it came from. Secrets are masked."""
    view = View[Row](
        kind="setting",
        columns=(
            Column("key", lambda row: row[0]),
            Column("value", lambda row: row[1]),
            Column("origin", lambda row: row[2]),
        ),
        document=lambda row: {"key": row[0], "value": json.loads(row[1]), "origin": row[2]},
    )
    output.show(view, shell_of(context).loaded.rows(), form)
    return exits.OK


@config.command("schema")
def config_schema(
    job: Annotated[bool, typer.Option("--job", help="Of vmrunner.yml.")] = False,
) -> int:
    """The JSON Schema of vmrunner.toml."""
    from vmrunner import configfile, jobfile

    schema = jobfile.schema() if job else configfile.schema()
    output.print_out(json.dumps(schema, indent=2))
    return exits.OK


@db.command("upgrade")
def db_upgrade(context: typer.Context) -> int:
    """Bring the tables to this version; SQLite does it by itself."""
    from vmrunner.config import database_url
    from vmrunner.ledger import Ledger

    output.print_out(Ledger.upgrade(database_url(shell_of(context).loaded.settings)))
    return exits.OK


@db.command("current")
def db_current(context: typer.Context) -> int:
    """The version of the tables."""
    from vmrunner.config import database_url
    from vmrunner.ledger import Ledger

    version = Ledger.current(database_url(shell_of(context).loaded.settings))
    output.print_out(version or "none")
    return exits.OK
