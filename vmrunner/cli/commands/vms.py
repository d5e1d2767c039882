"""`vmrunner vm ls|show|destroy` and `drain`."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.completion import instance_ids
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.cli.output import Format
from vmrunner.errors import ConfigError, NotFound, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.cli.views.builds import VmRow
    from vmrunner.model import Instance, Resource

app = typer.Typer(help="The VMs behind builds.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("-o", "--output")]


@app.command()
def ls(
    context: typer.Context,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="What the providers show, beside the ledger.")
    ] = False,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Gone ones too.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="At most so many, the newest.")
    ] = 1000,
    form: Output = Format.TABLE,
) -> int:
    """The VMs that this ledger answers for."""
    from vmrunner.cli.views.builds import machine_view

    shell = shell_of(context)
    # Beside the cloud all that are open count: what is there would have no row else.
    most = None if cloud and not everything else limit
    rows = shell.service.ledger.instances.list(active=None if everything else True, limit=most)
    unread: list[str] = []
    if cloud:
        _ = shell.ledger  # or it says that only who is there can look
        shown, unread = _sweep(shell)
        machines = _beside(shell, rows, shown)
    else:
        machines = _machines(shell, [(row, None) for row in rows])
    output.show(machine_view(cloud=cloud), machines, form)
    if not machines and form in (Format.TABLE, Format.WIDE):
        output.say("no VM" + ("" if everything else "; vm ls -a shows those that are gone"))
    if len(rows) == most:
        output.say(f"these are the newest {most}; --limit shows more")
    for text in unread:
        output.warn(text)
    return exit_codes.PARTLY if unread else exit_codes.OK


def _machines(
    shell: CliContext, found: Sequence[tuple[Instance | None, Resource | None]]
) -> list[VmRow]:
    """Return the rows to show, each at the time of its driver."""
    from vmrunner.cli.views.builds import VmRow

    times = {(r.provider, r.scope): shell.service.time_of(r) for r, _ in found if r}
    here = time.time()
    return [VmRow(r, times[r.provider, r.scope] if r else here, seen) for r, seen in found]


def _sweep(shell: CliContext) -> tuple[list[Resource], list[str]]:
    """Return what is ours by tag in every provider, and what could not be read."""
    from vmrunner.model import Power

    ours, unread = [], []
    for name, provider in shell.app.providers.all().items():
        for page in provider.sweep():
            if page.error is not None:
                unread.append(f"{name}: {page.scope}: {page.error}")
            ours += [
                resource
                for resource in page.resources
                if resource.tag("installation") == shell.ledger.installation
                and resource.power is not Power.DEAD
            ]
    return ours, unread


def _beside(shell: CliContext, rows: list[Instance], shown: Iterable[Resource]) -> list[VmRow]:
    """Each row with its VM, and what is there without a row that was listed."""
    from vmrunner.model import Kind

    left = {resource.ref: resource for resource in shown}
    vms: dict[str | None, list[Resource]] = {}
    for resource in left.values():
        if resource.ref.kind is Kind.INSTANCE:
            vms.setdefault(resource.instance, []).append(resource)
    found: list[tuple[Instance | None, Resource | None]] = []
    for row in rows:
        mine = vms.get(row.id, ())
        best = next((r for r in mine if r.ref == row.ref), mine[0] if mine else None)
        if best is not None:
            del left[best.ref]
        found.append((row, best))
    known = {
        row.id: row
        for row in shell.ledger.instances.these({r.instance for r in left.values() if r.instance})
    }
    found += [(known.get(resource.instance or ""), resource) for resource in left.values()]
    return _machines(shell, found)


@app.command()
def show(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="ID", autocompletion=instance_ids)],
    form: Output = Format.TABLE,
) -> int:
    """One VM, as the ledger has it: by its id, or its build's, whose last VM it is."""
    from vmrunner.cli.views.builds import machine_view
    from vmrunner.services.documents import instance_document

    shell = shell_of(context)
    row = _vm_of(shell, vm)
    if form in (Format.JSON, Format.JSONL):
        output.show(machine_view(cloud=False), _machines(shell, [(row, None)]), form)
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
) -> int:
    """End VMs now, and cancel their builds. Prints the id of each that is seen dead."""
    from vmrunner.services.destroy import past_deadline

    shell = shell_of(context)
    if not vms and not all_expired:
        raise ConfigError("no VM is named", hint="vmrunner vm destroy ID, or --all-expired")
    rows: list[Instance] = []
    codes: list[int] = []
    if all_expired:
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
            codes.append(_told(error))
    for row in rows:
        try:
            codes.append(_destroy(shell, row))
        except VmrunnerError as error:
            codes.append(_told(error))
    shell.service.ensure_ends_are_written()
    return _worst(codes)


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


def _told(error: VmrunnerError) -> int:
    output.say(f"error: {error}")
    return exit_codes.of_error(error)


def _destroy(shell: CliContext, row: Instance) -> int:
    from vmrunner.services.destroy import DestroyResult

    done = shell.service.destroy(row)
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
