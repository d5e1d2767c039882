"""`vmrunner vm ls|show|destroy` and `drain`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.completion import instance_ids
from vmrunner.cli.context import CliContext, over_server, refused_over_server, shell_of
from vmrunner.cli.output import Format
from vmrunner.errors import ConfigError, NotFound, VmrunnerError
from vmrunner.lib import units

if TYPE_CHECKING:
    from vmrunner.model import Instance

app = typer.Typer(help="List and destroy the VMs behind builds.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def ls(
    context: typer.Context,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Show what the providers show, beside the ledger.")
    ] = False,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Gone ones too.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show this many at most, the newest.")
    ] = 1000,
    form: Output = Format.TABLE,
) -> int:
    """List the VMs of this ledger."""
    from vmrunner.cli.views.builds import machine_view
    from vmrunner.config import field_checks
    from vmrunner.services.fleet import FleetVm

    field_checks.whole(limit, "--limit", 1, units.MOST_ROWS)
    service = shell_of(context).service
    unread: Sequence[str] = ()
    if cloud:
        found = service.fleet(gone=everything, limit=limit)
        machines, unread = found.vms, found.unread
    else:
        rows = service.ledger.instances.list(active=None if everything else True, limit=limit)
        machines = [FleetVm(row, service.time_of(row)) for row in rows]
    output.show(machine_view(cloud=cloud), machines, form)
    if not machines and form in (Format.TABLE, Format.WIDE):
        output.say("no VM" + ("" if everything else "; vm ls -a shows those that are gone"))
    if sum(vm.row is not None for vm in machines) >= limit and (everything or not cloud):
        output.say(f"these are the newest {limit}; --limit shows more")
    for text in unread:
        output.warn(text)
    return exit_codes.PARTLY if unread else exit_codes.OK


@app.command()
def show(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="ID", autocompletion=instance_ids)],
    form: Output = Format.TABLE,
) -> int:
    """Show one VM, as the ledger has it. ID is its own, or a build's, for its last VM."""
    from vmrunner.cli.views.builds import machine_view
    from vmrunner.services.documents import instance_document
    from vmrunner.services.fleet import FleetVm

    shell = shell_of(context)
    row = _vm_of(shell, vm)
    if form in (Format.JSON, Format.JSONL):
        vm_row = FleetVm(row, shell.service.time_of(row))
        output.show(machine_view(cloud=False), [vm_row], form)
    else:
        for key, value in instance_document(row).items():
            if value not in (None, ""):
                output.print_out(f"{key:<14}{output.clean(str(value))}")
    return exit_codes.OK


def _vm_of(shell: CliContext, word: str) -> Instance:
    ledger = shell.service.ledger
    try:
        return ledger.instances.find(word)
    except NotFound as error:
        try:
            build = ledger.builds.find(word)
        except NotFound:
            raise error from None
    if build.instance is None:
        raise NotFound(f"{build.id} had no VM: it is {build.state.value}")
    return ledger.instances.get(build.instance)


@app.command()
def destroy(
    context: typer.Context,
    vms: Annotated[
        list[str] | None, typer.Argument(metavar="ID", autocompletion=instance_ids)
    ] = None,
    all_expired: Annotated[
        bool, typer.Option("--all-expired", help="All that are past their deadline.")
    ] = False,
    gone: Annotated[
        bool,
        typer.Option(
            "--gone",
            help="Close the rows of VMs that are gone with their host, and cannot be asked.",
        ),
    ] = False,
) -> int:
    """End VMs now, and cancel their builds. Prints the id of each that is seen dead."""
    from vmrunner.services.destroy import past_deadline

    shell = shell_of(context)
    if gone and all_expired:
        raise ConfigError("--gone is of VMs that you name", hint="vmrunner vm destroy --gone ID")
    if gone and over_server():
        raise refused_over_server(
            "vm destroy --gone", "it is said where the ledger is: on a host with its URL"
        )
    if not vms and not all_expired:
        raise ConfigError("no VM is named", hint="vmrunner vm destroy ID, or --all-expired")
    rows: list[Instance] = []
    codes: list[int] = []
    if all_expired:
        if over_server():
            raise refused_over_server(
                "vm destroy --all-expired",
                "it goes by the clouds' own tags, for when the ledger is away; `reap` works",
            )
        try:
            rows += past_deadline(shell.ledger, shell.app.providers)
        except VmrunnerError as error:
            output.warn(f"going by the tags alone: {error}")
            if not vms:
                return _worst(_expire(shell, ()))
        codes += _expire(shell, {row.id for row in rows})
    for word in vms or ():
        try:
            rows.append(shell.service.ledger.instances.find(word))
        except VmrunnerError as error:
            codes.append(_report(error))
    for row in rows:
        try:
            codes.append(_destroy(shell, row, gone=gone))
        except VmrunnerError as error:
            codes.append(_report(error))
    _let_ends_be_written(shell)
    return _worst(codes)


def _let_ends_be_written(shell: CliContext) -> None:
    """The VMs are what was asked for: without an engine now, the next one writes the rest."""
    try:
        shell.service.ensure_ends_are_written()
    except VmrunnerError as error:
        output.warn(str(error))


def _worst(codes: list[int]) -> int:
    worst = [code for code in codes if code]
    return (
        exit_codes.OK if not worst else worst[0] if len(worst) == len(codes) else exit_codes.PARTLY
    )


def _expire(shell: CliContext, rows: Collection[str]) -> list[int]:
    """Kill what is past its deadline by its own tags, before the ledger can be in the way. What
    has one of these rows is told when the row is closed."""
    from vmrunner.reaper import expired
    from vmrunner.services import destroy, reap

    app = shell.app
    report = reap.end_expired(app.ledgers, app.providers, app.limits(), seconds=destroy.SEEN_DEAD)
    codes = []
    for line in report.lines:
        name = line.instance or line.id
        if line.failed:
            codes.append(exit_codes.FAILED)
            output.say(f"error: {line.id}: {line.outcome}")
        elif line.instance not in rows and line.kind == "instance":
            dead = line.outcome == expired.SEEN_DEAD
            codes.append(exit_codes.OK if dead else exit_codes.UNFINISHED)
            if dead:
                output.print_out(output.clean(name))
            else:
                output.say(f"{name} was asked to die and is not seen dead yet")
    for text in report.unread:
        codes.append(exit_codes.FAILED)
        output.say(f"error: {text}")
    return codes


def _report(error: VmrunnerError) -> int:
    output.say(f"error: {error}")
    return exit_codes.of_error(error)


def _destroy(shell: CliContext, row: Instance, *, gone: bool) -> int:
    from vmrunner.services.destroy import DestroyResult, give_up

    app = shell.app
    done = give_up(shell.ledger, app.providers, row) if gone else shell.service.destroy(row)
    if done.result is DestroyResult.REFUSED:
        output.say(f"error: {row.id}: {done.error}")
        return exit_codes.FAILED
    if done.result is DestroyResult.ASKED:
        output.say(f"{row.id} was asked to die and is not seen dead yet; that goes on")
        return exit_codes.UNFINISHED
    if done.result is DestroyResult.GONE_BEFORE:
        output.say(f"{row.id} was gone already")
    output.print_out(row.id)
    return exit_codes.OK


def drain(
    context: typer.Context,
    off: Annotated[bool, typer.Option("--off", help="Launch again.")] = False,
) -> int:
    """Stop launching, in every process that serves this ledger. What runs goes on."""
    shell_of(context).service.drain(off=off)
    output.say("launching again" if off else "no build is started until `vmrunner drain --off`")
    return exit_codes.OK
