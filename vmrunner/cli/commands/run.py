"""`vmrunner run`."""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrunner.cli import artifact_destination, build_options, exit_codes, output
from vmrunner.cli.context import CliContext, shell_of, stdout_is_data
from vmrunner.cli.output import Format
from vmrunner.errors import LedgerError, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.cli.signals import Signals
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.model import BuildEvent, BuildRecord
    from vmrunner.services.requests import CheckedRequest

log = logging.getLogger("vmrunner")


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """The way in which a build is followed, as opposed to what it is."""

    form: Format
    detach: bool
    timestamps: bool
    dry_run: bool
    artifacts_to: Path | None
    result_file: Path | None


def run(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="A job of vmrunner.yml, or of the file of -f."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Job file; default: vmrunner.yml here."),
    ] = None,
    provider: build_options.Provider = None,
    image: build_options.Image = None,
    bootstrap: Annotated[
        bool | None,
        typer.Option("--bootstrap", help="VM image is a plain Debian or Ubuntu: install Docker."),
    ] = None,
    container: build_options.Container = None,
    container_runtime: build_options.Runtime = None,
    docker: build_options.Docker = None,
    source: build_options.Source = None,
    step: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line to run as a step; repeat for more steps."),
    ] = None,
    env: build_options.Env = None,
    env_file: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="File with lines NAME=VALUE or NAME.")
    ] = None,
    secret: build_options.Secret = None,
    registry_secret: build_options.RegistrySecret = None,
    allow_secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Variable that the job file may use as a secret."),
    ] = None,
    allow_host_files: Annotated[
        bool,
        typer.Option(
            "--allow-host-files",
            help="Let the job file read outside its directory, and use git as you.",
        ),
    ] = False,
    artifact: Annotated[
        list[str] | None,
        typer.Option("-a", "--artifact", metavar="GLOB", help="Files to bring back."),
    ] = None,
    artifacts_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy the artifacts there.")
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=PATH", help="Directory of the container to keep for later builds."
        ),
    ] = None,
    label: build_options.Label = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Longest run of the steps; else 30m, or as configured."
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Longest life of the VM; default: timeout + 15m."),
    ] = None,
    queue_timeout: build_options.QueueTimeout = None,
    keep_on_failure: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Keep a failed VM this long, for `vmrunner ssh`."),
    ] = None,
    keep_logs: build_options.KeepLogs = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY", help="open, none, or allow=HOST[:PORT],…; else as configured."
        ),
    ] = None,
    name: build_options.Name = None,
    cpus: build_options.Cpus = None,
    memory: build_options.Memory = None,
    disk: build_options.Disk = None,
    spot: build_options.Spot = None,
    retry_on_loss: Annotated[
        bool | None,
        typer.Option(
            "--retry-on-loss", help="If the VM is lost, run again even if steps had begun."
        ),
    ] = None,
    priority: build_options.Priority = None,
    privileged: build_options.Privileged = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Submit once: the same key is the same build.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("-d", "--detach", help="Print the build's id and return.")
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Print a time before each line.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, start nothing.")] = False,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
    result_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the result there, as JSON."),
    ] = None,
) -> int:
    """Run a command in a container in a fresh VM.

    vmrunner run --source . --network none -- make test

    The exit code is the command's own. 124: a timeout. 125: vmrunner or the cloud failed, never the
    command. 130: Ctrl-C."""
    options = locals()  # each field of `BuildRequest` has its parameter: tests hold it
    from vmrunner.cli import run_inputs
    from vmrunner.services.host_access import HostAccess

    shell = shell_of(context)
    words = words or []
    steps = run_inputs.steps(context.meta.get("command") or (), step or ())
    file = run_inputs.job_file(words, file, steps)
    request = run_inputs.request(options, steps, whole=file is not None)
    if file is not None:
        allowed = HostAccess(secrets=frozenset(allow_secret or ()), host_files=allow_host_files)
        request = run_inputs.with_job(request, file, words[0] if words else None, allowed)
    follow_options = FollowOptions(form, detach, timestamps, dry_run, artifacts_to, result_file)
    return carry_out(shell, request, follow_options)


def carry_out(shell: CliContext, request: BuildRequest, options: FollowOptions) -> int:
    """Check, submit, follow, and give the exit code."""
    from vmrunner.cli.image_progress import ImageProgress
    from vmrunner.cli.signals import Signals
    from vmrunner.lib import process

    artifact_destination.check(options.result_file, options.artifacts_to)
    service = shell.service
    # One after the other: what a step gives belongs to the submission that gave it.
    submission = service.submission
    checked = submission.check(request)
    if options.artifacts_to is not None and not checked.spec.artifacts:
        output.warn("artifacts-to: no artifact is asked for (name what to bring: -a GLOB)")
    if checked.host_uses:
        output.say(f"the job file takes {', '.join(checked.host_uses)}")
    admitted = submission.admit(checked, warn=output.warn)
    if options.dry_run:
        return _dry_run(checked, options.form, service.source_bytes)
    with ImageProgress(admitted.image.why if admitted.image else "") as progress:
        packed = submission.pack(admitted, on_image=progress)
    if packed.total is not None:
        output.say(f"source: {packed.total}")
    if service.paused:
        output.warn("launching is stopped: it waits for `vmrunner drain --off`")
    if options.detach:
        row, new = submission.queue(packed)
        service.ensure_served(row.spec.provider)
        if not new:
            output.say(f"the idempotency key belongs to {row.id}")
        _announce(row, options)
        return exit_codes.OK
    signals = Signals()
    with signals.on():
        row, new = submission.queue(packed, submitter=process.current())
        try:
            output.say(f"build {row.id}" + ("" if new else " has this idempotency key already"))
            row = _attend(shell, row, signals, options, own=new)
        except exit_codes.ExitNow:
            raise
        except Exception as error:
            if new:
                _abandon(shell, row, unread=isinstance(error, BrokenPipeError))
            raise
    return conclude(shell, row, signals.code if signals.count else None, options)


def _abandon(shell: CliContext, row: BuildRecord, *, unread: bool) -> None:
    """We cannot be there for our build any more: it must end, and something must end its VM.
    `unread`: the reader of its output went away."""
    from vmrunner.model import Reason

    why, reason = "", Reason.USER
    if unread:
        why, reason = "the reader of its output went away", Reason.OWNER_GONE
        output.say(f"the reader of the output went away: {row.id} is cancelled")
    for last in (
        lambda: shell.service.cancel(row.id, reason=reason, why=why),
        lambda: shell.service.ensure_served(row.spec.provider),
    ):
        try:
            last()
        except VmrunnerError as error:
            log.warning("%s", error)  # the next engine sees that we are gone


def _attend(
    shell: CliContext, row: BuildRecord, signals: Signals, options: FollowOptions, *, own: bool
) -> BuildRecord:
    """`own`: the build is ours; one that had our idempotency key already is only watched."""
    from vmrunner.cli.follow import TerminalFollower
    from vmrunner.cli.log_sink import LogSink

    to_stderr = stdout_is_data(options.form)
    stream = sys.stderr if to_stderr else sys.stdout
    sink = LogSink.to(stream, timestamps=options.timestamps)
    with shell.service.host("run" if own else None) as host, sink:
        host.ensure(row.spec.provider)
        return TerminalFollower(
            shell.service, host, row.id, sink, signals, own=own, live=sys.stderr.isatty()
        ).follow()


def conclude(
    shell: CliContext, row: BuildRecord, interrupted: int | None, options: FollowOptions
) -> int:
    """Artifacts, result document, and the last line on stderr; the exit code."""
    from vmrunner.model import BuildState, Result
    from vmrunner.services import build_history, documents

    if row.state is BuildState.HELD:
        try:
            shell.service.ensure_served(row.spec.provider)  # it ends the hold when we are gone
        except VmrunnerError as error:
            output.say(f"error: {error}")  # its deadline ends it
        until = documents.iso(row.hold_until)
        output.say(f"its VM is kept until {until}: vmrunner ssh {row.id}, vmrunner cancel {row.id}")
    events = _happened(shell, row)
    culprit = build_history.culprit(row, events)
    if culprit is not None:
        output.say(build_history.describe(row, culprit))
    if row.message:
        (output.warn if row.result is Result.SUCCESS else output.say)(row.message)
    to, file = options.artifacts_to, options.result_file
    whole = to is None or artifact_destination.copy(shell.service.artifacts(row), to)
    document = documents.ended_document(row, events) | _brought_back(shell, row)
    if file is not None:
        whole = (
            artifact_destination.write(file, output.json_envelope("build", [document])) and whole
        )
    if options.form is Format.JSON:
        output.write_json(sys.stdout, "build", [document])
    elif options.form is Format.JSONL:
        output.print_out(output.json_text(document))
    named = len(row.spec.steps) > 1 and row.result is not Result.CANCELLED
    last_line(row, build_history.title(row, culprit.index or 0) if culprit and named else "")
    if interrupted is not None and row.result is Result.CANCELLED:
        return interrupted
    return exit_codes.of_build(row) or (exit_codes.OK if whole else exit_codes.OURS)


def _brought_back(shell: CliContext, row: BuildRecord) -> dict[str, Any]:
    """Return the artifacts for a result document. Null where they cannot be told now."""
    from vmrunner.services import documents

    if not row.spec.artifacts:
        return {"artifacts_back": []}
    try:
        found = [documents.artifact_document(artifact) for artifact in shell.service.artifacts(row)]
    except VmrunnerError as error:
        log.warning("artifacts: %s", error)
        return {"artifacts_back": None}
    return {"artifacts_back": found}


def _happened(shell: CliContext, row: BuildRecord) -> list[BuildEvent]:
    """Return the build's events. A ledger that is away now hides nothing of the build's end."""
    try:
        return shell.service.ledger.events.list(row.id)
    except LedgerError as error:
        log.warning("%s", error)
        return []


def last_line(row: BuildRecord, step: str = "") -> None:
    """Print the line that scripts look for. `step`: the one of several in which it ended otherwise
    than well."""
    from vmrunner.cli.views import builds

    result = row.result.value if row.result else ""
    reason = row.reason.value if row.reason else ""
    code = "" if row.exit_code is None else str(row.exit_code)
    named = f" step={shlex.quote(builds.short(step, 60))}" if step else ""
    output.say(f"result={result} reason={reason} exit_code={code} build={row.id}{named}")


def _announce(row: BuildRecord, options: FollowOptions) -> None:
    from vmrunner.services import documents

    if options.form is Format.JSON:
        output.write_json(sys.stdout, "build", [documents.build_document(row)])
    elif options.form is Format.JSONL:
        output.print_out(output.json_text(documents.build_document(row)))
    else:
        output.print_out(row.id)


def _dry_run(checked: CheckedRequest, form: Format, most: int) -> int:
    """Show what would be submitted."""
    from dataclasses import asdict

    from vmrunner.cli import run_inputs
    from vmrunner.services import sources

    files = None
    if checked.source is not None:
        with checked.placed():
            files = list(sources.look(checked.source, most=most))
    if form in (Format.JSON, Format.JSONL):
        document = asdict(checked.spec)
        if files is not None:
            document["source_files"] = run_inputs.files_document(files)
        output.write_json(sys.stdout, "spec", [document])
    else:
        run_inputs.show_spec(checked.spec)
        if files is not None:
            run_inputs.show_files(files)
    return exit_codes.OK
