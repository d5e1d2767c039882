"""`vmrunner config show|get|path|trust|schema` and `db upgrade|status|current|rotate-key`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Column, Format, ListView
from vmrunner.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from vmrunner.config.sources import ConfigPlace
    from vmrunner.config.trust import TrustedFile
    from vmrunner.ledger.ledger import LedgerState
    from vmrunner.ledger.sealed_values import ResealedColumn
    from vmrunner.services.document_types import (
        ConfigFileDocument,
        DatabaseDocument,
        SealedDocument,
        SettingDocument,
        TrustedDocument,
    )

config = typer.Typer(help="Show the configuration, and trust a project's.", no_args_is_help=True)
db = typer.Typer(help="Upgrade and check the ledger's database.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]
Row = tuple[str, str, str]


@config.command("show")
def config_show(form: Output = Format.TABLE) -> int:
    """Show every value and where it came from. Secrets are masked."""
    from vmrunner.config import contradictions, sources

    loaded = sources.read()
    view: ListView[Row] = ListView(
        kind="setting",
        columns=(
            Column("key", lambda row: row[0]),
            Column("value", lambda row: row[1]),
            Column("origin", lambda row: row[2]),
        ),
        document=_setting,
    )
    rows = loaded.rows(readable=form in (Format.TABLE, Format.WIDE))
    output.show(view, rows, form)
    try:
        loaded.trusted()
    except ConfigError as error:
        output.warn(f"other commands refuse: {error}")
    for found in contradictions.of(loaded.settings):
        output.warn(f"it cannot work so: {found}")
    return exit_codes.OK


def _setting(row: Row) -> SettingDocument:
    key, value, origin = row
    return {"key": key, "value": json.loads(value), "origin": origin}


@config.command("get")
def config_get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as limits.max_ttl.")],
) -> int:
    """Print one value: text as it is, all else as JSON. Nothing if it is not set."""
    from vmrunner.config import sources
    from vmrunner.lib import units

    values = {name: json.loads(text) for name, text, _ in sources.read().rows()}
    below = {
        name.removeprefix(f"{key}."): value
        for name, value in values.items()
        if name.startswith(f"{key}.")
    }
    if key not in values and not below:
        tables = {name[:at] for name in values for at in range(len(name)) if name[at] == "."}
        near = units.nearest_of(key, {*values, *tables})
        raise NotFound(f"no key {key!r}", hint=near or "vmrunner config show lists them")
    value = below or values[key]
    text = "" if value is None else value if isinstance(value, str) else output.json_text(value)
    output.print_out(text)
    return exit_codes.OK


@config.command("path")
def config_path(form: Output = Format.TABLE) -> int:
    """List the files that configure vmrunner here, weakest first. It says which exist. Variables
    and flags are stronger than all of them."""
    from vmrunner.config import sources

    view: ListView[ConfigPlace] = ListView(
        kind="config_file",
        columns=(
            Column("source", lambda place: place.source),
            Column("state", lambda place: place.state),
            Column("file", lambda place: str(place.path)),
        ),
        document=_config_file,
    )
    output.show(view, sources.places(os.environ, sources.here()), form)
    return exit_codes.OK


def _config_file(place: ConfigPlace) -> ConfigFileDocument:
    return {"source": place.source, "path": str(place.path), "state": place.state}


@config.command("trust")
def config_trust(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A project's file; default: the one that holds here."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List what is trusted.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust it no more.")] = False,
    form: Output = Format.TABLE,
) -> int:
    """Trust a project's file with keys about data and credentials. This holds for its present
    content alone: read it first."""
    from vmrunner.config import sources, trust

    if listed:
        output.show(_trust_view(), trust.entries(), form)
        return exit_codes.OK
    file = path or sources.project_file(sources.here())
    if file is None:
        raise NotFound("no vmrunner.toml or [tool.vmrunner] here or above", hint="name a file")
    if file.is_dir():
        file /= sources.PROJECT
    if revoke:
        trust.revoke(file)
        output.say(f"{file} is trusted no more")
        return exit_codes.OK
    if not file.is_file():
        raise NotFound(f"no file {str(file)!r}", hint="name a vmrunner.toml or pyproject.toml")
    entry = trust.add(file)
    output.say(f"{entry.path} is trusted as it is now (sha256 {entry.sha256[:12]})")
    return exit_codes.OK


def _trusted(entry: TrustedFile) -> TrustedDocument:
    return {"sha256": entry.sha256, "path": entry.path, "state": entry.state}


def _trust_view() -> ListView[TrustedFile]:
    return ListView(
        kind="trusted",
        columns=(
            Column("file", lambda entry: entry.path),
            Column("sha256", lambda entry: entry.sha256[:12]),
            Column("state", lambda entry: entry.state),
        ),
        document=_trusted,
        empty="no project's file is trusted",
    )


@config.command("schema")
def config_schema(
    job: Annotated[bool, typer.Option("--job", help="The schema of vmrunner.yml.")] = False,
    document: Annotated[
        str | None,
        typer.Option(
            "--document", metavar="KIND", help="That of a document of -o json, such as build."
        ),
    ] = None,
    openapi: Annotated[
        bool, typer.Option("--openapi", help="The OpenAPI document of the HTTP API.")
    ] = False,
) -> int:
    """Print the JSON Schema of vmrunner.toml."""
    from vmrunner.config import jobfile, sources
    from vmrunner.lib import resources

    if job + openapi + (document is not None) > 1:
        raise ConfigError("--job, --document, --openapi: they are several", hint="keep one")
    if openapi:
        schema = json.loads(resources.openapi().read_bytes())
    elif document is not None:
        from vmrunner.services import document_schemas

        schema = document_schemas.schema(document)
    else:
        schema = jobfile.schema() if job else sources.schema()
    output.print_out(json.dumps(schema, indent=2))
    return exit_codes.OK


@db.command("upgrade")
def db_upgrade(context: typer.Context) -> int:
    """Upgrade the tables to this version. SQLite needs no command for it."""
    from vmrunner.config.paths import database_url
    from vmrunner.ledger import Ledger

    output.print_out(Ledger.upgrade(database_url(shell_of(context).loaded.settings)))
    return exit_codes.OK


@db.command("status")
def db_status(context: typer.Context, form: Output = Format.TABLE) -> int:
    """Show the version of the tables, missing upgrades, and sizes. Changes nothing."""
    from vmrunner.config.paths import database_url
    from vmrunner.ledger import Ledger
    from vmrunner.lib import units

    view: ListView[LedgerState] = ListView(
        kind="database",
        columns=(
            Column("database", lambda state: state.url),
            Column("version", lambda state: state.version or "none"),
            Column("newest", lambda state: state.newest),
            Column("pending", lambda state: " ".join(state.pending)),
            Column("size", lambda state: "" if state.size is None else units.amount(state.size)),
        ),
        document=_database,
    )
    state = Ledger.state(database_url(shell_of(context).loaded.settings))
    output.show(view, [state], form)
    if state.version is None:
        output.say("the database has no tables yet; the first command that needs them makes them")
    elif state.pending:
        output.say("vmrunner db upgrade runs what is pending; of SQLite any other command does")
    elif state.version > state.newest:
        output.warn("a newer vmrunner made these tables: use that one")
    return exit_codes.OK


def _database(state: LedgerState) -> DatabaseDocument:
    return {
        "url": state.url,
        "version": state.version,
        "newest": state.newest,
        "pending": list(state.pending),
        "bytes": state.size,
    }


@db.command("current")
def db_current(context: typer.Context) -> int:
    """Print the version of the tables."""
    from vmrunner.config.paths import database_url
    from vmrunner.ledger import Ledger

    version = Ledger.current(database_url(shell_of(context).loaded.settings))
    output.print_out(version or "none")
    return exit_codes.OK


@db.command("rotate-key")
def db_rotate_key(
    context: typer.Context,
    finish: Annotated[
        bool, typer.Option("--finish", help="Drop the former key, if nothing is left under it.")
    ] = False,
    form: Output = Format.TABLE,
) -> int:
    """Encrypt the ledger's secrets with a new key, while it is in use. Exits 7 if some are left
    under another key."""
    from vmrunner.services import key_rotation

    ledger = shell_of(context).ledger
    columns = key_rotation.rotate(ledger, finish=finish)
    output.show(_resealed_view(), columns, form)
    source = ledger.sealed.key_file or "VMRUNNER_SECRET_KEY"
    if remaining := sum(column.left for column in columns):
        output.warn(
            f"{remaining} values are not under the first key of {source}: keep the others, see "
            "that every node has the new one, and run this again"
        )
        return exit_codes.PARTLY
    if ledger.sealed.key_file is None:
        output.say(f"all values are under the first key of {source}: others may be dropped")
    elif not finish:
        output.say(f"all values are under the new key; {key_rotation.HOW_TO_FINISH}")
    return exit_codes.OK


def _sealed(column: ResealedColumn) -> SealedDocument:
    return {
        "name": column.name,
        "values": column.values,
        "resealed": column.resealed,
        "left": column.left,
    }


def _resealed_view() -> ListView[ResealedColumn]:
    return ListView(
        kind="sealed",
        columns=(
            Column("column", lambda x: x.name),
            Column("values", lambda x: str(x.values)),
            Column("resealed", lambda x: str(x.resealed)),
            Column("left", lambda x: str(x.left)),
        ),
        document=_sealed,
    )
