"""Traces of builds: a span for the build, each phase and each step, made from the ledger when the
build has ended.

So a take-over loses nothing, the engine does nothing for it, and the outbox sees to it that each is
exported. Names are those of OpenTelemetry's CI/CD conventions (1.44, release candidates), copied:
its Python package has them as incubating.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.core import trace_context
from vmrunner.model import (
    TRACES,
    BuildRecord,
    BuildState,
    EventKind,
    Notification,
    NotifyEndpoint,
    NotifyEvent,
    Phase,
    Reason,
    Result,
)
from vmrunner.services import build_history
from vmrunner.services.notifications import OutboxSender
from vmrunner.services.telemetry.spans import SpanData, Value

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import BuildEvent, Instance
    from vmrunner.services.build_history import StepRun
    from vmrunner.services.telemetry.otlp import TraceExporter

log = logging.getLogger("vmrunner")

#: Variables of which one is set where traces are wanted.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_RESULTS: Final = {
    Result.SUCCESS: "success",
    Result.FAILURE: "failure",
    Result.ERROR: "error",
    Result.TIMEOUT: "timeout",
    Result.CANCELLED: "cancellation",
}
_STATES: Final = {BuildState.QUEUED: "pending", BuildState.COLLECTING: "finalizing"}


def wanted(environ: Mapping[str, str]) -> bool:
    """True if the environment names a collector, and does not turn traces off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (not exporter and any(map(environ.get, _ENDPOINTS)))


def endpoints(environ: Mapping[str, str]) -> list[NotifyEndpoint]:
    """Return whom the ends of builds are written down for."""
    if not wanted(environ):
        return []
    return [NotifyEndpoint(name=TRACES, events=frozenset({NotifyEvent.BUILD_ENDED}))]


def senders(ledger: Ledger, environ: Mapping[str, str], url: str) -> dict[str, Callable[[], None]]:
    """The exporter of ended builds' traces, by name: none where that is not wanted, or the
    extra is not installed. `url`: of the page, for links; may be empty."""
    if not wanted(environ):
        return {}
    if importlib.util.find_spec("opentelemetry") is None:
        log.warning("no trace is sent from here: pip install 'vmrunner[otel]'")
        return {}
    from vmrunner.services.telemetry.otlp import TraceExporter

    exporter = TraceExporter()

    def deliver(notification: Notification, _: float) -> str:
        return export(ledger, exporter, notification.subject, url)

    return {TRACES: OutboxSender(ledger, TRACES, deliver).run}


def export(ledger: Ledger, exporter: TraceExporter, name: str, url: str) -> str:
    """Export one build's trace. Return why it was not taken; empty when it was."""
    build = ledger.builds.get(name)
    events = ledger.events.list(name)
    parent = parent_of(events)
    own = trace_context.of_build(ledger.installation, name, parent)
    vms = ledger.instances.these([build.instance] if build.instance else [])
    page = f"{url}/builds/{name}" if url else ""
    spans = spans_of(build, events, vms[0] if vms else None, parent=parent, url=page)
    return exporter.export(spans, own, parent)


def parent_of(events: list[BuildEvent]) -> trace_context.TraceContext | None:
    """The span of the build's submitter, if that was told."""
    contexts = (event for event in events if event.kind == EventKind.TRACE)
    return trace_context.told_by(next(contexts, None))


def spans_of(
    build: BuildRecord,
    events: list[BuildEvent],
    vm: Instance | None,
    *,
    parent: trace_context.TraceContext | None,
    url: str = "",
) -> list[SpanData]:
    """Return the spans of a build that has its verdict, parents first. The time for which its VM is
    kept afterwards is none of it. `vm`: its last; `url`: its page."""
    assert build.result is not None
    phases = [p for p in build.phases if p.state not in (BuildState.HELD, BuildState.FINISHED)]
    verdict = next((p.started for p in build.phases if p.state is BuildState.HELD), None)
    end = verdict or build.finished_at or build.created_at
    root = SpanData(
        id=trace_context.span_id(build.id, "build"),
        parent=parent.span_id if parent else None,
        name=f"RUN {build.spec.name or 'build'}",
        start=build.created_at,
        end=end,
        attributes=_build_attributes(build, vm, url),
        error="" if build.result is Result.SUCCESS else _why(build),
        entry=True,
    )
    spans = [_phase(build, n, phase, root, end) for n, phase in enumerate(phases)]
    return [root, *spans, *_steps(build, events, root, spans, end)]


def _build_attributes(build: BuildRecord, vm: Instance | None, url: str) -> dict[str, Value]:
    assert build.result is not None
    found: dict[str, Value | None] = {
        "cicd.pipeline.name": build.spec.name or "build",
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.run.id": build.id,
        "cicd.pipeline.run.url.full": url or None,
        "cicd.pipeline.result": _RESULTS[build.result],
        "cicd.worker.id": build.instance,
        "error.type": None if build.result is Result.SUCCESS else build.reason,
        "vmrunner.provider": build.spec.provider,
        "vmrunner.attempt": build.attempt,
        "vmrunner.reason": build.reason,
        "vmrunner.exit_code": build.exit_code,
        "vmrunner.start": vm.start if vm else None,
        "vmrunner.machine_type": vm.offer.machine_type if vm else None,
        "vmrunner.place": vm.offer.place if vm else None,
    }
    found |= {f"vmrunner.label.{name}": value for name, value in build.spec.labels.items()}
    return {
        name: str(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }


def _why(build: BuildRecord) -> str:
    return build.message or (build.reason.value if build.reason else "")


def _phase(build: BuildRecord, n: int, phase: Phase, root: SpanData, end: float) -> SpanData:
    return SpanData(
        id=trace_context.span_id(build.id, f"phase/{n}"),
        parent=root.id,
        name=phase.state.value,
        start=phase.started,
        end=end if phase.ended is None else phase.ended,
        attributes={
            "cicd.pipeline.run.id": build.id,
            "cicd.pipeline.run.state": _STATES.get(phase.state, "executing"),
        },
    )


def _steps(
    build: BuildRecord,
    events: list[BuildEvent],
    root: SpanData,
    phases: list[SpanData],
    end: float,
) -> Iterator[SpanData]:
    culprit = build_history.culprit(build, events)
    for run in build_history.runs(events):
        if run.index is None:
            continue
        name = build_history.title(build, run.index)
        result = _result(build, run, culprit)
        within = [p for p in phases if p.start <= run.started <= p.end and p.name == "running"]
        yield SpanData(
            id=trace_context.span_id(build.id, f"step/{run.attempt}/{run.index}"),
            parent=(within[0] if within else root).id,
            name=name,
            start=run.started,
            end=end if run.ended is None else run.ended,
            attributes={
                "cicd.pipeline.task.name": name,
                "cicd.pipeline.task.run.id": f"{build.id}/{run.attempt}/{run.index}",
                "cicd.pipeline.task.run.result": result,
                **({} if run.exit_code is None else {"vmrunner.exit_code": run.exit_code}),
            },
            error="" if result == "success" else result,
        )


def _result(build: BuildRecord, run: StepRun, culprit: StepRun | None) -> str:
    if run == culprit and build.result is not None and build.reason is not Reason.EXIT_CODE:
        return _RESULTS[build.result]
    if run.ended is None:
        return "error"  # its VM was lost
    return "failure" if run.exit_code else "success"
