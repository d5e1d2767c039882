"""`vmrunner pool ls|show|resize|drain`."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Format

app = typer.Typer(help="Show and change pools of waiting VMs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As in the configuration.")]
Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def ls(context: typer.Context, form: Output = Format.TABLE) -> int:
    """List pools: wanted and ready VMs, hits, costs."""
    from vmrunner.cli.views.pools import pool_view

    found = shell_of(context).service.pools()
    output.show(pool_view(), found, form)
    if not found and form in (Format.TABLE, Format.WIDE):
        output.say("no pool; a `vmrunner serve` whose configuration has [pools.NAME] makes them")
    return exit_codes.OK


@app.command()
def show(context: typer.Context, name: Name, form: Output = Format.TABLE) -> int:
    """Show one pool, and why it is empty."""
    from vmrunner.cli.views.pools import description, pool_view

    found = shell_of(context).service.pool(name)
    if form not in (Format.TABLE, Format.WIDE):
        output.show(pool_view(), [found], form)
        return exit_codes.OK
    for key, value in description(found).items():
        if value:
            output.print_out(f"{key:<10} {output.clean(value)}")
    return exit_codes.OK


@app.command()
def resize(
    context: typer.Context,
    name: Name,
    size: Annotated[int, typer.Argument(metavar="N", min=0, help="VMs that wait.")],
) -> int:
    """Change its size, until the configuration changes."""
    shell_of(context).service.resize_pool(name, size)
    output.say(f"{name} is to have {size}; `vmrunner pool show {name}` tells how far it is")
    return exit_codes.OK


@app.command()
def drain(context: typer.Context, name: Name) -> int:
    """End its waiting VMs and make no more. This holds until the configuration changes or it is
    resized. Builds that have one go on."""
    shell_of(context).service.drain_pool(name)
    output.say(f"{name} is drained; `vmrunner pool resize {name} N` fills it again")
    return exit_codes.OK
