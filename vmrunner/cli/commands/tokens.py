"""`vmrunner token create|ls|revoke`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Column, Format, ListView

if TYPE_CHECKING:
    from vmrunner.model import Token

app = typer.Typer(help="Make and revoke tokens of the HTTP API.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="For you, to know it by.")],
    scope: Annotated[
        list[str], typer.Option(metavar="SCOPE,…", help="submit, read, enter, admin, metrics.")
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="It sees such builds alone, and submits only such."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Default: never.")] = None,
    builds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The most builds at once.")
    ] = None,
    max_ttl: Annotated[
        str | None, typer.Option(metavar="DURATION", help="The longest life of a VM.")
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These providers alone.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="The most that its builds reach; as with run."),
    ] = None,
    docker: Annotated[
        bool | None,
        typer.Option("--docker/--no-docker", help="May they have a Docker of their own."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="It may name these VM images alone."),
    ] = None,
    usd_per_day: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="USD", help="The most that its builds may cost in a day (UTC)."
        ),
    ] = None,
) -> int:
    """Make a token and print it, this once. It cannot be shown again."""
    from vmrunner.config import network_policy
    from vmrunner.lib import units
    from vmrunner.model import TokenQuota
    from vmrunner.services import tokens

    shell = shell_of(context)
    quota = TokenQuota(
        builds=builds,
        max_ttl=None if max_ttl is None else units.duration(max_ttl, "--max-ttl"),
        providers=tuple(map(shell.app.settings.provider, provider)) if provider else None,
        usd_per_day=usd_per_day,
        network=None if network is None else network_policy.policy(network, "--network"),
        docker=docker,
        images=tuple(image) if image else None,
    )
    secret, token = tokens.create(
        shell.app.ledgers.open(make=True),
        name,
        tokens.scopes(word.strip() for part in scope for word in part.split(",")),
        labels=units.labels(label or ()),
        quota=quota,
        expires=None if expires is None else units.duration(expires, "--expires"),
    )
    output.print_out(secret)
    output.say(f"that was {token.id}; it is not shown again")
    return exit_codes.OK


@app.command()
def ls(context: typer.Context, form: Output = Format.TABLE) -> int:
    """All tokens, oldest first; revoked ones too."""
    found = shell_of(context).ledger.tokens.list()
    output.show(_view(time.time()), found, form)
    return exit_codes.OK


@app.command()
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id or name.")],
) -> int:
    """End a token, and the browser sessions that it logged in."""
    from vmrunner.services import tokens

    found, done = tokens.revoke(shell_of(context).ledger, token)
    output.print_out(found.id)
    if not done:
        output.say(f"{found.id} was revoked before")
    return exit_codes.OK


def _view(now: float) -> ListView[Token]:
    from vmrunner.lib import units
    from vmrunner.services.documents import iso, token_document

    def state(token: Token) -> str:
        if token.revoked_at is not None:
            return "revoked"
        return "valid" if token.valid(now) else "expired"

    return ListView(
        kind="token",
        columns=(
            Column("id", lambda t: t.id),
            Column("name", lambda t: t.name),
            Column("state", state),
            Column("scopes", lambda t: ",".join(sorted(t.scopes))),
            Column("labels", lambda t: ",".join(f"{k}={v}" for k, v in sorted(t.labels.items()))),
            Column("age", lambda t: units.span(now - t.created_at)),
            Column("expires", lambda t: iso(t.expires_at) or ""),
            Column("by", lambda t: t.created_by, wide=True),
        ),
        document=token_document,
        empty="no token; vmrunner token create NAME --scope submit,read",
    )
