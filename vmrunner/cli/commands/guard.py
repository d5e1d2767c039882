"""`vmrunner guard install|status|remove|policy`: what lives in the cloud account, and ends what is
past its deadline with nothing of vmrunner's running."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.cli.output import Column, Format, ListView
from vmrunner.errors import ConfigError
from vmrunner.lib import resources, units
from vmrunner.providers import registry
from vmrunner.providers.port_guard import (
    SILENCE,
    CanInstallGuard,
    Guard,
    GuardPart,
    GuardSpec,
    PartState,
    Policy,
)

if TYPE_CHECKING:
    from vmrunner.services.document_types import GuardPartDocument

app = typer.Typer(
    help="Install and check the guard in a cloud account. It ends what is past its deadline, even "
    "if vmrunner is gone.",
    no_args_is_help=True,
)

Output = Annotated[Format, typer.Option("-o", "--output")]
Provider = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="The provider whose account it guards.")
]

_COLOURS: Final = {PartState.PRESENT: "green", PartState.UNKNOWN: "yellow"}


@app.command()
def install(
    context: typer.Context,
    provider: Provider,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION", help="Region to guard; repeat for more; `all`: all enabled."
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long past its deadline a VM is left to vmrunner: 8m.",
        ),
    ] = None,
    everyone: Annotated[
        bool | None,
        typer.Option(
            "--all-installations/--this-installation",
            help="VMs of all, or of this ledger's installation alone (the default).",
        ),
    ] = None,
    notify: Annotated[
        list[str] | None, typer.Option(metavar="ARN", help="Where alarms go: an SNS topic.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """Install it, or bring it up to date. Options that you leave out stay as they are."""
    shell = shell_of(context)
    every = region is not None and "all" in region
    spec = GuardSpec(
        max_ttl=_max_ttl(shell),
        regions=None if region is None else () if every else tuple(region),
        grace=None if grace is None else units.duration(grace, "--grace"),
        everyone=everyone,
        notify=None if notify is None else tuple(notify),
    )
    parts = _shown(_guard(shell, provider).install(spec), form)
    if form in (Format.TABLE, Format.WIDE) and not any(part.done for part in parts):
        output.say("nothing had to be done")
    return exit_codes.OK


@app.command()
def status(context: typer.Context, provider: Provider, form: Output = Format.TABLE) -> int:
    """Check that every part is there and works. Exits 7 if not."""
    from vmrunner.services.documents import iso

    shell = shell_of(context)
    found = _guard(shell, provider).status(GuardSpec(max_ttl=_max_ttl(shell)))
    at = iso(found.last_success)
    worked = GuardPart(
        name="last success",
        id=at or "none within a day",
        state=PartState.DIFFERS if found.silent else PartState.PRESENT,
        detail=f"silent for more than {SILENCE // 60} minutes"
        if found.silent
        else ""
        if at
        else "it was just installed",
    )
    output.show(_VIEW, [*found.parts, worked], form)
    if not found.well:
        output.say(f"vmrunner guard install {provider} makes what is missing")
    return exit_codes.OK if found.well else exit_codes.PARTLY


@app.command()
def remove(context: typer.Context, provider: Provider, form: Output = Format.TABLE) -> int:
    """Remove every part. VMs keep their other layers, such as their own timers."""
    parts = _shown(_guard(shell_of(context), provider).remove(), form)
    remains = any(part.state is not PartState.ABSENT for part in parts)
    return exit_codes.PARTLY if remains else exit_codes.OK


@app.command()
def policy(
    context: typer.Context,
    provider: Provider,
    audience: Annotated[
        Policy,
        typer.Option(
            "--for",
            help="Its subject: vmrunner, the guard, or everyone in an account for builds.",
        ),
    ] = Policy.VMRUNNER,
) -> int:
    """Print a least-privilege policy of the cloud's."""
    output.print_out(_guard(shell_of(context), provider).policy(audience))
    return exit_codes.OK


def _shown(parts: Iterable[GuardPart], form: Format) -> list[GuardPart]:
    """All that was done, also where it broke off."""
    done: list[GuardPart] = []
    try:
        done.extend(parts)
    finally:
        output.show(_VIEW, done, form)
    return done


def _guard(shell: CliContext, name: str) -> Guard:
    """Raises `ConfigError` where there can be none."""
    app = shell.app
    found = app.providers.get(app.settings.provider(name))
    if not isinstance(found, CanInstallGuard):
        drivers = registry.drivers()
        kind = app.settings.providers[found.name].kind
        module = drivers[kind].guard
        made = "whose guard Terraform makes" if module else "which has none"
        having = " or ".join(
            driver.kind for driver in drivers.values() if driver.guard == "vmrunner"
        )
        raise ConfigError(
            f"guard: provider {found.name} is of kind {kind}, {made}",
            hint=f"terraform apply, with the module {resources.path('deploy') / module}"
            if module
            else f"name a provider of kind {having}",
        )
    return found.guard()


def _max_ttl(shell: CliContext) -> float:
    return shell.loaded.settings.limits.max_ttl


def _document(part: GuardPart) -> GuardPartDocument:
    return {
        "part": part.name,
        "id": part.id,
        "state": part.state,
        "done": part.done or None,
        "detail": part.detail or None,
    }


_VIEW: Final[ListView[GuardPart]] = ListView(
    kind="guard_part",
    columns=(
        Column("part", lambda p: p.name),
        Column("state", lambda p: p.state.value, colour=lambda p: _COLOURS.get(p.state, "red")),
        Column("id", lambda p: p.id),
        Column("done", lambda p: p.done),
        Column("detail", lambda p: p.detail),
    ),
    document=_document,
)
