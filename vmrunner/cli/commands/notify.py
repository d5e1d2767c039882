"""`vmrunner notify ls|test`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Column, Format, ListView

if TYPE_CHECKING:
    from vmrunner.model import EndpointStatus

app = typer.Typer(help="Check webhooks and other receivers of events.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def ls(context: typer.Context, form: Output = Format.TABLE) -> int:
    """List webhooks, and how their last tries ended."""
    output.show(_view(time.time()), shell_of(context).ledger.outbox.status(), form)
    return exit_codes.OK


@app.command()
def test(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the configuration has it.")],
) -> int:
    """Send a test event to a webhook, now and once."""
    from vmrunner.services import notifications

    shell = shell_of(context)
    settings = notifications.one_of(shell.app.settings.notify, name)
    webhook = notifications.open_webhook(settings, shell.app.settings.server.url)
    event, error = notifications.try_out(webhook, shell.app.ledgers.installation, time.time())
    if error:
        output.warn(f"{name} did not take {event}: {error}")
        return exit_codes.FAILED
    output.print_out(event)
    return exit_codes.OK


def _view(now: float) -> ListView[EndpointStatus]:
    from vmrunner.lib import units
    from vmrunner.services.documents import endpoint_document

    def ago(at: float | None) -> str:
        return "" if at is None else units.span(max(0.0, now - at))

    return ListView(
        kind="notify_endpoint",
        columns=(
            Column("name", lambda e: e.name),
            Column("waiting", lambda e: str(e.waiting)),
            Column("oldest", lambda e: ago(e.oldest)),
            Column("delivered", lambda e: ago(e.delivered_at)),
            Column("given up", lambda e: str(e.given_up)),
            Column("named", lambda e: ago(e.named_at), wide=True),
            Column("error", lambda e: e.error),
        ),
        document=endpoint_document,
        empty="no webhook; [[notify]] in the configuration, then vmrunner serve",
    )
