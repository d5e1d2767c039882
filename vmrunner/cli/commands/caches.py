"""`vmrunner cache ls|rm`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import do_each, shell_of
from vmrunner.cli.output import Format

app = typer.Typer(help="List and remove caches of builds.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def ls(context: typer.Context, form: Output = Format.TABLE) -> int:
    """List caches, the last used first."""
    from vmrunner.lib import units
    from vmrunner.model import StoredCache
    from vmrunner.services.caches import cache_document

    found = shell_of(context).service.caches()
    now = time.time()
    view: output.ListView[StoredCache] = output.ListView(
        kind="cache",
        columns=(
            output.Column("id", lambda c: c.id),
            output.Column("key", lambda c: c.key),
            output.Column("path", lambda c: c.path),
            output.Column("scope", lambda c: c.scope),
            output.Column("size", lambda c: units.amount(c.size)),
            output.Column("used", lambda c: f"{units.span(now - c.used_at)} ago"),
            output.Column("build", lambda c: c.build, wide=True),
            output.Column("tenant", lambda c: c.tenant, wide=True),
        ),
        document=cache_document,
    )
    output.show(view, found, form)
    if not found and form in (Format.TABLE, Format.WIDE):
        output.say("no cache; a build that has --cache KEY=PATH leaves one when it succeeds")
    return exit_codes.OK


@app.command()
def rm(
    context: typer.Context,
    caches: Annotated[
        list[str], typer.Argument(metavar="ID", help="As `cache ls` shows it, or its beginning.")
    ],
) -> int:
    """Remove caches. Prints the id of each."""
    service = shell_of(context).service
    _, code = do_each(caches, lambda name: output.print_out(service.remove_cache(name)))
    return code
