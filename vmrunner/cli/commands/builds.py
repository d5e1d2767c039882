"""`vmrunner ps`, `show`, `events`, `logs`, `watch`, `cancel`, `extend`, `rm`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.completion import build_ids
from vmrunner.cli.context import CliContext, do_each, shell_of, stdout_is_data, unicode_out
from vmrunner.cli.output import Format
from vmrunner.errors import ConfigError
from vmrunner.lib import units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmrunner.model import BuildEvent, BuildRecord, Instance

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="An id, the beginning of one, or a name.", autocompletion=build_ids
    ),
]
Output = Annotated[Format, typer.Option("-o", "--output")]
Timestamps = Annotated[bool, typer.Option("--timestamps", help="A time before each line.")]
_REFRESH = 2.0
_UNFINISHED = ["active"]  # what `ps` shows unless more is asked for
_BESIDE = 4  # lines of a watched screen that are no row: heading, reason, how many, cursor


def ps(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Finished ones too.")] = False,
    watching: Annotated[
        bool, typer.Option("-w", "--watch", help="Show it anew every two seconds, until Ctrl-C.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("-l", "--label", metavar="NAME=VALUE", help="Only with this label."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only in this state; again: in any of them."),
    ] = None,
    result: Annotated[
        list[str] | None,
        typer.Option(
            "--result",
            metavar="RESULT",
            help="Only with this result (failure, timeout, …); again: with any of them.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Only of this name; NAME*: that begins so."),
    ] = None,
    actor: Annotated[
        list[str] | None,
        typer.Option(
            "--actor", metavar="WHO", help="Only submitted by this user or token; again: by any."
        ),
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Only of this provider.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only what finished then or later, and what was submitted then or later and has "
            "not finished: 24h ago, 2026-11-30 (UTC), 2026-11-30T08:00:00Z.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Only before that, read alike.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Ids alone, one a line.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show this many at most, the newest.")
    ] = 1000,
    form: Output = Format.TABLE,
) -> int:
    """List builds, newest first. Only unfinished ones, unless you ask for a state, a result or a
    time."""
    from vmrunner.config import field_checks
    from vmrunner.services import build_filter

    field_checks.whole(limit, "--limit", 1, units.MOST_ROWS)
    if quiet and form is not Format.TABLE:
        raise ConfigError(f"-q: ids alone, and -o {form.value} is more", hint="give one of the two")
    shell = shell_of(context)
    if not (everything or state or result or since or until):
        state = _UNFINISHED
    words: build_filter.FilterWords = {
        "state": state, "result": result, "name": name, "actor": actor, "provider": provider,
        "since": since, "until": until,
    }  # fmt: skip
    labels = units.labels(label or ())
    on_terminal = watching and sys.stdout.isatty()
    with _watched() if on_terminal else contextlib.nullcontext():
        while True:
            most = limit
            if on_terminal and form in (Format.TABLE, Format.WIDE):  # it has no scrollback
                most = min(limit, max(1, output.screen_lines() - _BESIDE))
            choice = build_filter.choice(words, time.time(), labels=labels)
            rows = shell.service.ledger.builds.chosen(choice, most + 1)
            if on_terminal:
                output.clear_screen()
            if quiet:
                for row in rows[:most]:
                    output.print_out(row.id)
            else:
                _table(shell, rows[:most], form, all_states=words["state"] != _UNFINISHED)
            if len(rows) > most:
                more = "--limit shows more" if most == limit else "a taller terminal shows more"
                output.say(f"only the newest {most}; {more}")
            if not watching:
                return exit_codes.OK
            time.sleep(_REFRESH)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Show what is printed on the terminal's other screen; whatever ends us, it comes back."""
    from vmrunner.cli.signals import interrupted_by_signals

    with interrupted_by_signals(), output.other_screen():
        yield


def _table(shell: CliContext, rows: list[BuildRecord], form: Format, *, all_states: bool) -> None:
    from vmrunner.cli.views.builds import build_view

    waiting = shell.service.waiting(rows)
    starts = shell.service.starts(rows) if form is not Format.TABLE else {}
    if form is not Format.TABLE:
        rows = shell.service.named(shell.service.costed(rows))
    output.show(build_view(waiting=waiting, starts=starts), rows, form)
    if form is Format.TABLE:
        for why in sorted(set(waiting.values())) if len(waiting) == 1 else ():
            output.say(f"it waits: {why}")
    if not rows and form in (Format.TABLE, Format.WIDE):
        output.say("no such build" if all_states else "no build; ps -a shows finished ones too")


def show(context: typer.Context, build: Id, form: Output = Format.TABLE) -> int:
    """Show one build: its end, phases and events."""
    from vmrunner.cli.views.builds import build_view
    from vmrunner.services.documents import shown_document

    shell = shell_of(context)
    row = shell.service.costed([shell.service.ledger.builds.find(build)])[0]
    (row,) = shell.service.named([row])
    rows = shell.service.ledger.instances.list(build=row.id)
    events = shell.service.ledger.events.list(row.id)
    if form in (Format.TABLE, Format.WIDE):
        _describe(shell, row, rows, events)
        return exit_codes.OK
    document = shown_document(
        row,
        rows,
        events,
        shell.service.waiting([row]).get(row.id),
        shell.service.artifacts(row).known(),
    )
    if (tests := shell.service.tests(row)) is not None:
        document["tests"] = tests
    view = build_view()
    output.show(output.ListView(view.kind, view.columns, lambda _: document), [row], form)
    return exit_codes.OK


def _describe(
    shell: CliContext, row: BuildRecord, rows: Sequence[Instance], events: Sequence[BuildEvent]
) -> None:
    from vmrunner.cli.views import builds as views
    from vmrunner.services import build_history, costs, people, usage_text
    from vmrunner.services.documents import iso, start_of

    now = time.time()
    culprit = build_history.culprit(row, events)
    end = ", ".join(
        word
        for word in (
            row.result.value if row.result else None,
            row.reason.value if row.reason else None,
            None if row.exit_code is None else f"exit code {row.exit_code}",
        )
        if word
    )
    facts = {
        "build": row.id + (f"  {row.spec.name}" if row.spec.name else ""),
        "state": row.state.value,
        "result": end,
        "step": build_history.describe(row, culprit) if culprit is not None else "",
        "message": row.message,
        "waits": shell.service.waiting([row]).get(row.id, ""),
        "command": views.short(row.spec.title, 100),
        "container": row.spec.container,
        "pinned": views.pinned(rows),
        "runtime": row.spec.runtime,
        "provider": row.spec.provider,
        "network": str(row.spec.network),
        "source": row.spec.source or "",
        "instance": row.instance or "",
        "start": views.start_text(row, start_of(row, rows), events),
        "VM": views.life(row, rows),
        "attempt": str(row.attempt) if row.attempt > 1 else "",
        "submitter": people.who(row),
        "created": iso(row.created_at),
        "cancelled": build_history.requester(events, "cancel"),
        "extended": build_history.requester(events, "extend"),
        "ended": iso(row.finished_at) or "",
        "held until": iso(row.hold_until) or "" if row.state.value == "held" else "",
        "cost": costs.text(row.cost),
        "used": usage_text.text(row.usage),
        "labels": ", ".join(f"{k}={v}" for k, v in sorted(row.spec.labels.items())),
    }
    for key, value in facts.items():
        if value:
            output.print_out(f"{key:<11}{output.clean(value)}")
    for title, lines in (
        ("phases", views.timeline(row, now, unicode=unicode_out())),
        ("steps", views.steps(row, events)),
        ("tests", views.tests(shell.service.tests(row))),
        ("caches", views.caches(events)),
        (
            "artifacts",
            [f"{a.path}  {units.amount(a.size)}" for a in shell.service.artifacts(row).known()],
        ),
    ):
        if lines:
            output.print_out(f"\n{title}")
            output.print_out("\n".join(f"  {output.clean(line)}" for line in lines))
    if row.state.value == "held":
        output.say(f"look inside: vmrunner ssh {row.id}; end it: vmrunner cancel {row.id}")


def events(context: typer.Context, build: Id, form: Output = Format.TABLE) -> int:
    """List the events of one build, in order."""
    from vmrunner.cli.views.builds import event_view

    ledger = shell_of(context).service.ledger
    output.show(event_view(), ledger.events.list(ledger.builds.find(build).id), form)
    return exit_codes.OK


def logs(
    context: typer.Context,
    build: Id,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow it to its end; exits with its exit code.")
    ] = False,
    timestamps: Timestamps = False,
    after: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only lines after this number.")
    ] = 0,
    form: Output = Format.TABLE,
) -> int:
    """Print the log so far on stdout, and nothing else."""
    from vmrunner.cli.follow import TerminalFollower
    from vmrunner.cli.log_sink import LogSink
    from vmrunner.cli.signals import Signals
    from vmrunner.config import field_checks
    from vmrunner.services.logs import LogReader

    field_checks.whole(after, "--after", 0, units.MOST_ROWS)
    shell = shell_of(context)
    row = shell.service.ledger.builds.find(build)
    if stdout_is_data(form):
        return _log_lines(shell, row, form, follow=follow, after=after)
    sink = LogSink.to(sys.stdout, timestamps=timestamps)
    if not follow:
        with sink:
            for chunk in LogReader(shell.service.log(row.id), after=after).new_chunks():
                sink.write(chunk)
        return exit_codes.OK
    signals = Signals()
    with signals.on(), shell.service.host(None) as host, sink:
        follower = TerminalFollower(
            shell.service, host, row.id, sink, signals, after=after, own=False, talk=False
        )
        return exit_codes.of_build(follower.follow())


def _log_lines(
    shell: CliContext, row: BuildRecord, form: Format, *, follow: bool, after: int
) -> int:
    from vmrunner.model import LogLine
    from vmrunner.services.documents import log_line_document
    from vmrunner.services.follow import BuildFollower
    from vmrunner.services.logs import LogReader, lines

    view: output.ListView[LogLine] = output.ListView(
        kind="log_line",
        columns=(),
        document=log_line_document,
    )
    with shell.service.host(None) as host:
        if follow:
            found = lines(
                BuildFollower(
                    shell.service.ledger,
                    host,
                    row.id,
                    log=shell.service.log(row.id),
                    after=after,
                    interval=shell.service.follow_interval,
                ).chunks()
            )
        else:
            found = lines(LogReader(shell.service.log(row.id), after=after).new_chunks())
        if form is Format.JSON:
            output.show(view, list(found), form)
        else:
            for line in found:
                output.show(view, [line], form)
    return exit_codes.of_build(shell.service.ledger.builds.get(row.id)) if follow else exit_codes.OK


def watch(
    context: typer.Context,
    build: Id,
    timestamps: Timestamps = False,
    artifacts_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy the artifacts there.")
    ] = None,
    result_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """Follow a build to its end, as `run` does. Ctrl-C stops watching, not the build."""
    from vmrunner.cli import artifact_destination
    from vmrunner.cli.commands.run import FollowOptions, conclude
    from vmrunner.cli.follow import TerminalFollower
    from vmrunner.cli.log_sink import LogSink
    from vmrunner.cli.signals import Signals

    artifact_destination.check(result_file, artifacts_to)
    shell = shell_of(context)
    row = shell.service.ledger.builds.find(build)
    stream = sys.stderr if stdout_is_data(form) else sys.stdout
    sink = LogSink.to(stream, timestamps=timestamps)
    signals = Signals()
    with signals.on(), shell.service.host(None) as host, sink:
        row = TerminalFollower(
            shell.service, host, row.id, sink, signals, own=False, live=sys.stderr.isatty()
        ).follow()
    options = FollowOptions(form, False, timestamps, False, artifacts_to, result_file)
    return conclude(shell, row, None, options)


def cancel(
    context: typer.Context,
    builds: Annotated[list[str], typer.Argument(metavar="ID", autocompletion=build_ids)],
) -> int:
    """End builds and destroy their VMs. Prints the id of each."""
    service = shell_of(context).service
    cancelled, code = do_each(
        builds, lambda word: service.cancel(service.ledger.builds.find(word).id)
    )
    for found in cancelled:
        output.print_out(found.id)
        if found.finished:
            output.say(f"{found.id} had finished before")
    service.ensure_ended(cancelled)
    return code


def extend(
    context: typer.Context,
    build: Id,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="Such as 20m.")],
    form: Output = Format.TABLE,
) -> int:
    """Keep a held VM longer, never past its deadline."""
    from vmrunner.cli.views.builds import build_view
    from vmrunner.services.documents import iso

    shell = shell_of(context)
    seconds = units.duration(by, "duration")
    before = shell.service.ledger.builds.find(build)
    row = shell.service.extend(before, seconds)
    if form in (Format.JSON, Format.JSONL):
        output.show(build_view(), [row], form)
    else:
        output.print_out(iso(row.hold_until) or "")
    if row.hold_until is not None and row.hold_until < (before.hold_until or 0.0) + seconds - 1:
        output.warn(f"not past the VM's deadline {iso(row.hold_until)}")
    return exit_codes.OK


def rm(
    context: typer.Context,
    builds: Annotated[list[str], typer.Argument(metavar="ID", autocompletion=build_ids)],
) -> int:
    """Remove the logs and artifacts of builds that ended. Prints the id of each."""
    service = shell_of(context).service

    def remove(word: str) -> None:
        row = service.ledger.builds.find(word)
        service.remove(row)
        output.print_out(row.id)

    _, code = do_each(builds, remove)
    return code
