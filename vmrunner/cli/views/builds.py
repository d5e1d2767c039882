"""Views of builds, instances and the rest: columns for people beside the documents for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vmrunner.cli.output import Column, ListView
from vmrunner.lib import units
from vmrunner.model import (
    BuildEvent,
    BuildRecord,
    BuildState,
    EventKind,
    Instance,
    Kind,
    Result,
    Start,
)
from vmrunner.services import build_history, people
from vmrunner.services.documents import build_document, event_document, iso, listed_document

if TYPE_CHECKING:
    from vmrunner.model import Cost
    from vmrunner.services.document_types import TestsDocument
    from vmrunner.services.fleet import FleetVm

_RESULT_COLOURS = {
    Result.SUCCESS: "green",
    Result.FAILURE: "red",
    Result.ERROR: "red",
    Result.TIMEOUT: "yellow",
    Result.CANCELLED: "yellow",
}


def _cost(cost: Cost) -> str:
    from vmrunner.services import costs

    return costs.short(cost)


def build_view(
    *, waiting: Mapping[str, str] | None = None, starts: Mapping[str, Start] | None = None
) -> ListView[BuildRecord]:
    """`ps`. `waiting`: why builds are queued, by their ids; `starts`: by instance."""
    why = waiting or {}
    came = starts or {}

    def start(build: BuildRecord) -> Start | None:
        return came.get(build.instance or "")

    at = time.time()

    def phase(build: BuildRecord) -> str:
        return "" if build.finished else units.span(at - build.state_since)

    return ListView(
        kind="build",
        columns=(
            Column("id", lambda b: b.id),
            Column("name", lambda b: b.spec.name),
            Column("state", lambda b: b.state.value),
            Column("result", _result, colour=lambda b: result_colour(b.result)),
            Column("age", lambda b: units.span(at - b.created_at)),
            Column("phase", phase),
            Column("who", people.who, wide=True),
            Column("provider", lambda b: b.spec.provider, wide=True),
            Column("container", lambda b: b.spec.container, wide=True),
            Column("instance", lambda b: b.instance or "", wide=True),
            Column("start", lambda b: found.value if (found := start(b)) else "", wide=True),
            Column("reason", lambda b: b.reason.value if b.reason else "", wide=True),
            Column("waiting", lambda b: short(why.get(b.id, ""), 60), wide=True),
            Column("cost", lambda b: _cost(b.cost), wide=True),
            Column("labels", lambda b: _labels(b.spec.labels), wide=True),
            Column("command", _command),
        ),
        document=lambda b: listed_document(b, start(b), why.get(b.id)),
    )


def _whose(row: Instance | None) -> str:
    if row is None:
        return ""
    return row.build or (f"pool {row.pool}" if row.pool else "a template")


def _command(build: BuildRecord) -> str:
    if not build.spec.steps:
        return build.spec.title
    first, *more = build.spec.steps
    return short(first.title, 40) + (f" (+{len(more)})" if more else "")


def sandbox_view() -> ListView[BuildRecord]:
    """`sandbox ls`."""
    at = time.time()

    def left(build: BuildRecord) -> str:
        return "" if build.hold_until is None else units.span(max(0.0, build.hold_until - at))

    return ListView(
        kind="sandbox",
        columns=(
            Column("id", lambda b: b.id),
            Column("name", lambda b: b.spec.name),
            Column("state", lambda b: b.state.value),
            Column("age", lambda b: units.span(at - b.created_at)),
            Column("left", left),
            Column("container", lambda b: b.spec.container),
            Column("provider", lambda b: b.spec.provider, wide=True),
            Column("instance", lambda b: b.instance or "", wide=True),
            Column("labels", lambda b: _labels(b.spec.labels), wide=True),
        ),
        document=build_document,
        empty="no sandbox; vmrunner sandbox create makes one",
    )


def machine_view(*, cloud: bool) -> ListView[FleetVm]:
    """`vm ls`; with `cloud` what the providers show stands beside the ledger."""
    columns: list[Column[FleetVm]] = [
        Column("id", lambda m: m.id),
        Column("build", lambda m: _whose(m.row)),
        Column("state", lambda m: m.row.state.value if m.row else "no row"),
    ]
    if cloud:
        columns.append(Column("cloud", _cloud))
    columns += [
        Column("provider", lambda m: m.row.provider if m.row else ""),
        Column("type", lambda m: m.row.offer.machine_type if m.row else ""),
        Column("age", _age),
        Column("left", _left),
        Column("death", lambda m: m.row.death.value if m.row and m.row.death else "", wide=True),
        Column("ref", _ref, wide=True),
        Column("place", lambda m: m.row.offer.place if m.row else "", wide=True),
    ]
    from vmrunner.services.fleet import fleet_document

    return ListView(
        kind="instance", columns=columns, document=lambda m: fleet_document(m, cloud=cloud)
    )


def _cloud(machine: FleetVm) -> str:
    if machine.cloud is None:
        return "not seen"
    kind = machine.cloud.ref.kind
    return machine.cloud.power.value + ("" if kind is Kind.INSTANCE else f" {kind.value}")


def _age(machine: FleetVm) -> str:
    row, cloud = machine.row, machine.cloud
    created = row.created_at if row else cloud.created_at if cloud else None
    until = row.gone_at if row and row.gone_at is not None else machine.now
    return "" if created is None else units.span(until - created)


def _left(machine: FleetVm) -> str:
    row, cloud = machine.row, machine.cloud
    deadline = row.end if row else cloud.expires_at if cloud else None
    if deadline is None or (row and row.gone_at is not None):
        return ""
    rest = deadline - machine.now
    return units.span(rest) if rest > 0 else f"{units.span(-rest)} over"


def _ref(machine: FleetVm) -> str:
    ref = machine.row.ref if machine.row else machine.cloud.ref if machine.cloud else None
    return ref.id if ref else ""


def life(build: BuildRecord, rows: Iterable[Instance]) -> str:
    """Time and reason of the end of the build's VM."""
    row = next((row for row in rows if row.id == build.instance), None)
    if row is None or row.death is None:
        return ""
    when = f"gone {iso(row.gone_at)}" if row.gone_at is not None else "dying"
    return ", ".join(word for word in (when, row.death.value, row.message) if word)


def pinned(rows: Iterable[Instance]) -> str:
    """The container of the first attempt, by the digest that its tag stood for."""
    attempts = sorted((row.attempt, row.id, row.container) for row in rows if row.container)
    return attempts[0][2] if attempts else ""


def event_view() -> ListView[BuildEvent]:
    """`events`."""
    return ListView(
        kind="event",
        columns=(
            Column("seq", lambda e: str(e.seq)),
            Column("time", lambda e: iso(e.time) or ""),
            Column("kind", lambda e: e.kind),
            Column("data", lambda e: short(" ".join(f"{k}={v}" for k, v in e.data.items()), 100)),
        ),
        document=event_document,
    )


def result_colour(result: Result | None) -> str:
    return _RESULT_COLOURS.get(result, "") if result else ""


def short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def timeline(build: BuildRecord, now: float, *, width: int = 40, unicode: bool = True) -> list[str]:
    """The phases of a build as bars on one scale."""
    phases = [phase for phase in build.phases if phase.state is not BuildState.FINISHED]
    if not phases:
        return []
    begun = phases[0].started
    last = phases[-1].ended
    whole = max((last if last is not None else now) - begun, 0.001)
    block, edge = ("█", "▏") if unicode else ("#", "|")
    lines = []
    for phase in phases:
        start = min(round((phase.started - begun) / whole * width), width - 1)
        length = round(phase.seconds(now) / whole * width)
        bar = " " * start + (block * min(length, width - start) or edge)
        running = "" if phase.ended is not None else " …" if unicode else " ..."
        lines.append(f"{phase.state.value:<13}{units.span(phase.seconds(now)):>8}  {bar}{running}")
    return lines


def steps(build: BuildRecord, events: Iterable[BuildEvent]) -> list[str]:
    """A line for each step, and for the pull before them, from the events."""
    lines = []
    for run in build_history.runs(events):
        if run.ended is not None:
            took = units.span(run.ended - run.started)
            if run.index is None:
                lines.append(f"{took:>8}  pulled  {build.spec.container}")
            else:
                title = short(build_history.title(build, run.index), 60)
                lines.append(f"{took:>8}  exit {run.exit_code}  {title}")
    return lines


def start_text(build: BuildRecord, how: Start | None, events: Iterable[BuildEvent]) -> str:
    """The start of a build's VM, and whether the container that waited there was its."""
    if how in (None, Start.COLD):
        return how.value if how else ""
    pulled = any(event.kind == EventKind.PULLING for event in events)
    fresh = build.spec.docker or build.spec.privileged or pulled
    return f"{how.value}, in a fresh container" if fresh else how.value


def caches(events: Iterable[BuildEvent]) -> list[str]:
    """A line for each cache, with its outcome, from the events."""
    lines = []
    for event in events:
        if event.kind == EventKind.CACHE:
            data = event.data
            size = f"  {units.amount(int(data['bytes'] or 0))}" if "bytes" in data else ""
            why = f": {data['message']}" if "message" in data else ""
            outcome = str(data["outcome"]).replace("_", " ")
            lines.append(f"{outcome}  {data['key']}  {data['path']}{size}{why}")
    return lines


def tests(found: TestsDocument | None) -> list[str]:
    """Number of the tests that failed, and a line for each."""
    if found is None:
        return []
    lines = [f"{found['failed']} of {found['total']} failed"]
    for test in found["failures"]:
        name = f"{test['suite']} {test['name']}".strip()
        lines.append(short(f"{name}: {test['message']}" if test["message"] else name, 160))
    hidden = found["failed"] - len(found["failures"])
    return lines + ([f"and {hidden} more"] if hidden else []) + list(found["unread"])


def _result(build: BuildRecord) -> str:
    if build.result is None:
        return ""
    failed = build.result is Result.FAILURE and build.exit_code is not None
    return f"{build.result.value} ({build.exit_code})" if failed else build.result.value


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
