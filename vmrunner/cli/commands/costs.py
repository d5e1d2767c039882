"""`vmrunner costs`."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Format


def costs(
    context: typer.Context,
    by: Annotated[
        str, typer.Option("--by", metavar="provider|day|label:NAME", help="The lines of builds.")
    ] = "provider",
    since: Annotated[str, typer.Option("--since", metavar="DURATION", help="How far back.")] = "7d",
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Add up costs of builds, pools and images, in USD. They are estimates."""
    from vmrunner.cli.output import Column, ListView
    from vmrunner.core import cost_report
    from vmrunner.core.cost_report import CostLine
    from vmrunner.lib import units
    from vmrunner.services import costs as reports
    from vmrunner.services.documents import cost_document

    seconds = units.duration(since, "--since")
    found = shell_of(context).service.costs(by, seconds)
    view: ListView[CostLine] = ListView(
        kind="cost",
        columns=(
            Column(by, lambda line: reports.name(line, by)),
            Column("usd", lambda line: reports.short(line.cost)),
            Column("final", lambda line: "" if line.cost.final else "so far"),
            Column("builds", lambda line: str(line.builds or "")),
            Column("vms", lambda line: str(line.vms)),
            Column("time", lambda line: units.span(line.seconds)),
            Column("prices", lambda line: reports.basis(line.cost)),
        ),
        document=cost_document,
    )
    output.show(view, found, form)
    if form in (Format.TABLE, Format.WIDE):
        text = reports.text(cost_report.total(found)) or "nothing"
        output.say(f"together, in {units.span(seconds)}: {text}")
    return exit_codes.OK
