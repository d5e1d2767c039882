"""The page of one build. It follows the build until its VM is gone."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from vmrunner.config import cache_checks
from vmrunner.errors import StoreError
from vmrunner.lib import units
from vmrunner.model import (
    BuildChoice,
    BuildEvent,
    BuildRecord,
    BuildState,
    EventKind,
    Instance,
    Network,
    Principal,
    TokenScope,
)
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.html import rendered
from vmrunner.server.routes.artifacts import tests_of
from vmrunner.server.routes.builds import waiting_reasons
from vmrunner.server.routes.common import (
    Parts,
    Reader,
    Submitter,
    ask_store,
    costed,
    listing,
    visible_build,
)
from vmrunner.services import (
    build_history,
    build_times,
    command_line,
    costs,
    event_words,
    log_text,
    log_windows,
    people,
    run_again,
    usage_text,
)
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.build_history import StepRun
from vmrunner.services.documents import build_document, iso, shown
from vmrunner.services.follow import ended
from vmrunner.services.log_outline import sections

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

router = APIRouter(include_in_schema=False)
_LAST_LINES: Final = 15  # of the log of a step that failed, which the page begins with
_LINE: Final = 400  # bytes of each
_PLOTTED: Final = 30  # builds of one name, at most
_PLOTTED_BYTES: Final = 1 << 20  # of their specs
_FEWEST: Final = 2
_SHOWN: Final = 256 << 10  # bytes of an artifact that is looked at
_TITLE: Final = 200  # characters of a step's name
_EVENTS: Final = 500  # the newest


@router.get("/builds/{build}")
async def build(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """One build, with its log as it comes."""
    return await ask_store(request, lambda: _build(build, request, parts, principal))


def _build(build: str, request: Request, parts: ServerParts, principal: Principal) -> Response:
    row = costed(parts, visible_build(parts, principal, build))
    (row,) = people.named(parts.ledger, [row])
    events = parts.ledger.events.list(row.id)
    instances = parts.ledger.instances.list(build=row.id)
    artifacts = Artifacts.of(row, parts.artifact_files).known()
    coming = row.collected is not None and not artifacts and row.removed_at is None
    runs = build_history.runs(events)
    return rendered(
        request,
        "build.html",
        b=row,
        title=row.spec.name or row.id,
        whose=people.who(row),
        word=(row.result or row.state).value,
        took=None if row.finished_at is None else units.span(row.finished_at - row.created_at),
        waiting=waiting_reasons(parts, principal, [row]).get(row.id),
        changes=not row.finished or coming or any(vm.gone_at is None for vm in instances),
        open=not ended(row),
        longest=_kept_longest(row, instances),
        may_enter=TokenScope.ENTER in principal.scopes,
        failure=_failure(parts, row, events),
        steps=_steps(row, runs),
        steps_key=f"{len(runs)}.{sum(run.ended is not None for run in runs)}",
        facts=_facts(row, instances),
        times=_times(parts, row, instances),
        phases=_phases(row, parts.now()),
        artifacts=[
            {"path": shown(found.path), "size": units.amount(found.size)} for found in artifacts
        ],
        tests=tests_of(request, parts, row),
        before=_before(parts, principal, row),
        vms=[_vm(vm) for vm in instances],
        events=_event_rows(parts.ledger, row, events),
        more_events=max(0, len(events) - _EVENTS),
        command=command_line.command_of(row.spec) if row.spec.steps else "",
        log_name=f"{row.spec.name or 'build'}-{row.id}.log",
    )


def _failure(
    parts: ServerParts, row: BuildRecord, events: Sequence[BuildEvent]
) -> dict[str, Any] | None:
    """The step that failed, in words, with the end of its output; None: none did."""
    culprit = build_history.culprit(row, events)
    if culprit is None or culprit.index is None:
        return None
    words = build_history.describe(row, culprit, short=True)
    return {
        "words": words[0].upper() + words[1:],
        "step": culprit.index,
        "lines": _last_lines(parts, row, events),
    }


def _last_lines(parts: ServerParts, row: BuildRecord, events: Sequence[BuildEvent]) -> str:
    log = parts.log(row.id)
    try:
        places = log.places()
        found = sections(events, places, log_windows.line_count(log, places))
        last = found[-1]  # the run of a step is one
        first = max(last.first, last.last - _LAST_LINES + 1)
        lines = log_windows.window(log, first, max(0, last.last - first + 1), width=_LINE)
    except StoreError:  # the log itself says why
        return ""
    text = b"\n".join(log_text.plain(line.data) + b"\xe2\x80\xa6" * line.cut for line in lines)
    return text.decode(errors="replace")


def _before(parts: ServerParts, principal: Principal, row: BuildRecord) -> dict[str, Any] | None:
    """A plot of how long builds of this name took, this and those before it; None: it would have
    one bar at most."""
    if not row.spec.name:
        return None
    choice = BuildChoice(
        states=[BuildState.FINISHED],
        name=row.spec.name,
        own=principal.labels,
        before=f"{row.id}~",  # and itself
    )
    rows = [found for found in _last(parts, choice) if found.result is not None]
    if len(rows) < _FEWEST:
        return None
    return build_times.plot(rows[::-1])


def _last(parts: ServerParts, choice: BuildChoice) -> Sequence[BuildRecord]:
    return parts.ledger.builds.page(choice, _PLOTTED, _PLOTTED_BYTES).builds


def _steps(row: BuildRecord, runs: Sequence[StepRun]) -> list[dict[str, Any]]:
    """Each step, with how it went in the last attempt."""
    attempt = max((run.attempt for run in runs), default=1)
    last = {run.index: run for run in runs if run.attempt == attempt}
    found = []
    for n in range(len(row.spec.steps)):
        run = last.get(n)
        code = None if run is None else run.exit_code
        mark = "skipped" if ended(row) else "queued"
        if run is not None:
            mark = "running" if run.ended is None else "failure" if code else "success"
            if run.ended is None and ended(row):
                mark = row.result.value if row.result else "cancelled"
        found.append(
            {
                "index": n,
                "title": build_history.short_title(row, n, _TITLE),
                "mark": mark,
                "code": code,
                "since": run.started if run and run.ended is None and not ended(row) else None,
                "took": units.span(run.ended - run.started) if run and run.ended else "",
            }
        )
    return found


def _facts(row: BuildRecord, instances: Sequence[Instance]) -> list[tuple[str, object]]:
    spec = row.spec
    vm = next((vm for vm in instances if vm.id == row.instance), None)
    facts: Mapping[str, object] = {
        "reason": row.reason.value.replace("_", " ") if row.reason and not row.was_ready else "",
        "container": spec.container + (f" ({spec.runtime})" if spec.runtime != "runc" else ""),
        "pinned": vm.container if vm else "",
        "provider": spec.provider,
        "machine": vm.offer.machine_type if vm else "",
        "image": spec.image,
        "VM start": vm.start.value if vm and vm.start else "",
        "network": "" if spec.network is Network.OPEN else str(spec.network),
        "source": spec.source,
        "caches": cache_checks.paths(spec.caches),
        "attempt": row.attempt if row.attempt > 1 else "",
        "cost": costs.text(row.cost),
        "used": usage_text.text(row.usage),
    }
    return [(name, value) for name, value in facts.items() if value]


def _kept_longest(row: BuildRecord, instances: Sequence[Instance]) -> bool:
    """True if its VM is kept until it ends, which nothing moves."""
    last = next((vm for vm in instances if vm.id == row.instance), None)
    return last is not None and row.hold_until is not None and row.hold_until >= last.end


def _times(
    parts: ServerParts, row: BuildRecord, instances: Sequence[Instance]
) -> list[tuple[str, str, float]]:
    """Moments: a name, how it is told (`ago` or `until`), epoch seconds."""
    found = [("created", "ago", row.created_at)]
    if row.finished_at is not None:
        found.append(("ended", "ago", row.finished_at))
    last = next((vm for vm in instances if vm.id == row.instance), None)
    if last is not None and last.gone_at is None:
        # By the cloud's own clock, which may differ from ours.
        remaining = last.end - parts.providers.time_at(last.provider, last.scope)
        found.append(("VM ends", "until", parts.now() + remaining))
    if row.hold_until is not None and not row.finished:
        name = "held until" if row.state is BuildState.HELD else "lives until"
        found.append((name, "until", row.hold_until))
    return [(name, how, round(at)) for name, how, at in found]


def _phases(row: BuildRecord, now: float) -> list[dict[str, object]]:
    phases = [phase for phase in row.phases if phase.state is not BuildState.FINISHED]
    if not phases:
        return []
    begun = phases[0].started
    whole = max((phases[-1].ended or now) - begun, 0.001)
    return [
        {
            "state": phase.state.value,
            "span": None if phase.ended is None else units.span(phase.seconds(now)),
            "since": phase.started,
            "x": round((phase.started - begun) / whole * 100, 1),
            "width": max(round(phase.seconds(now) / whole * 100, 1), 0.5),
        }
        for phase in phases
    ]


def _vm(vm: Instance) -> dict[str, Any]:
    return {
        "id": vm.id,
        "attempt": vm.attempt,
        "state": vm.state.value,
        "machine": vm.offer.machine_type,
        "start": vm.start.value if vm.start else "",
        "created": vm.created_at,
        "end": vm.end if vm.gone_at is None else None,
        "gone": vm.gone_at,
        "death": vm.death.value if vm.death else "",
    }


def _event_rows(
    ledger: Ledger, row: BuildRecord, events: Sequence[BuildEvent]
) -> list[dict[str, Any]]:
    """The newest, in the order in which they happened, with names of people."""
    newest = [event for event in events[-_EVENTS:] if event.kind != EventKind.TRACE]
    actors = {by for event in newest if isinstance(by := event.data.get("by"), str)}
    names = people.names(ledger, actors)
    rows = []
    for event in newest:
        by = event.data.get("by")
        named = {**event.data, "by": names[by]} if isinstance(by, str) else event.data
        text = shown(event_words.of_event(row, replace(event, data=named)))
        rows.append({"seq": event.seq, "at": iso(event.time), "text": text})
    return rows


@router.get("/builds/{build}/artifacts/{path:path}")
async def artifact(
    build: str, path: str, request: Request, parts: Parts, principal: Reader
) -> Response:
    """The beginning of an artifact, as text."""
    return await ask_store(request, lambda: _artifact(build, path, request, parts, principal))


def _artifact(
    build: str, path: str, request: Request, parts: ServerParts, principal: Principal
) -> Response:
    row = visible_build(parts, principal, build)
    pieces, size = Artifacts.of(row, parts.artifact_files).read(path)
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > _SHOWN:
            break
    if isinstance(pieces, Generator):
        pieces.close()  # it has a file open
    text = None if b"\0" in data else log_text.plain(data[:_SHOWN]).decode(errors="replace")
    return rendered(
        request,
        "artifact.html",
        id=row.id,
        build_name=row.spec.name or row.id,
        path=shown(path),
        size=units.amount(size),
        text=text,
        cut=size > _SHOWN,
    )


@router.post("/builds/{build}/again")
def again(build: str, parts: Parts, principal: Submitter) -> Response:
    """Submit the same build once more."""
    row = visible_build(parts, principal, build)
    new = run_again.run_again(parts.submission(), principal, row)
    return listing("build", map(build_document, people.named(parts.ledger, [new])), status=201)
