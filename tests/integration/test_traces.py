"""Traces of builds: made of the ledger, children of whoever submitted, exported by OTLP."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import vmrunner
from tests.support.http_service import Service, only
from tests.support.ledger_builds import running
from tests.support.otlp_collector import Collector
from vmrunner.core import trace_context
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, builds
from vmrunner.model import TRACES, BuildState, EventKind, InstanceState, Reason, Result, Step
from vmrunner.services import traces
from vmrunner.services.notifications import OutboxSender
from vmrunner.services.telemetry import otlp
from vmrunner.services.telemetry.otlp import TraceExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NANO = 1_000_000_000


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACEPARENT", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    yield ledger
    ledger.close()


def ended(ledger: Ledger, build: str = "b-1", parent: str = "") -> str:
    """A build of two steps, the second of which fails, that was taken over meanwhile."""
    steps = (Step(run="make"), Step(run="make test", name="test"))
    running(ledger, build, f"vm-{build}", steps=steps, name="nightly", labels={"team": "core"})
    note = ledger.events.add
    if parent:
        note(build, EventKind.TRACE, 10.0, traceparent=parent)
    note(build, EventKind.STEP_STARTED, 105.0, step=0)
    note(build, EventKind.STEP_ENDED, 106.0, step=0, exit_code=0)
    note(build, EventKind.STEP_STARTED, 106.0, step=1)
    ledger.builds.take_over(build, seen_epoch=1, owner="e-2", until=300.0, now=106.5)
    note(build, EventKind.STEP_STARTED, 106.0, step=1)  # the VM tells it again
    note(build, EventKind.STEP_ENDED, 108.0, step=1, exit_code=2)
    move = ledger.builds.advance
    move(build, epoch=2, to=BuildState.COLLECTING, now=109.0, instance_to=InstanceState.BUSY)
    ledger.builds.finish(
        build, epoch=2, result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=2, now=110.0
    )
    return build


def exported(ledger: Ledger, build: str, url: str = "") -> dict[str, ReadableSpan]:
    memory = InMemorySpanExporter()
    assert traces.export(ledger, TraceExporter(memory), build, url) == ""
    return {span.name: span for span in memory.get_finished_spans()}


def test_a_span_for_build_phases_and_steps(ledger: Ledger) -> None:
    spans = exported(ledger, ended(ledger), "https://builds.example.org")
    assert list(spans) == [
        "RUN nightly", "queued", "provisioning", "booting", "connecting", "preparing", "running",
        "collecting", "make", "test",
    ]  # fmt: skip
    root = spans["RUN nightly"]
    assert (root.kind, root.parent) == (SpanKind.SERVER, None)
    assert (root.start_time, root.end_time) == (10 * NANO, 110 * NANO)
    assert root.status.status_code is StatusCode.ERROR
    wanted = {
        "cicd.pipeline.name": "nightly",
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.run.id": "b-1",
        "cicd.pipeline.run.url.full": "https://builds.example.org/builds/b-1",
        "cicd.pipeline.result": "failure",
        "cicd.worker.id": "vm-b-1",
        "error.type": "exit_code",
        "vmrunner.exit_code": 2,
        "vmrunner.label.team": "core",
    }
    assert wanted.items() <= dict(root.attributes or {}).items()
    states = {
        name: (span.attributes or {}).get("cicd.pipeline.run.state") for name, span in spans.items()
    }
    assert (states["queued"], states["running"], states["collecting"]) == (
        "pending", "executing", "finalizing",
    )  # fmt: skip
    test = spans["test"]
    assert (test.start_time, test.end_time) == (106 * NANO, 108 * NANO)
    assert dict(test.attributes or {}) == {
        "cicd.pipeline.task.name": "test",
        "cicd.pipeline.task.run.id": "b-1/1/1",
        "cicd.pipeline.task.run.result": "failure",
        "vmrunner.exit_code": 2,
    }
    assert spans["make"].status.status_code is StatusCode.UNSET
    running = spans["running"].context
    assert running is not None
    for name, span in spans.items():
        if span is not root:
            above = running if name in ("make", "test") else root.context
            assert span.parent is not None
            assert above is not None
            assert span.parent.span_id == above.span_id


def test_the_same_ids_each_time(ledger: Ledger) -> None:
    """What is exported twice is one trace to a collector."""
    build = ended(ledger)
    first, second = exported(ledger, build), exported(ledger, build)
    assert {n: s.context for n, s in first.items()} == {n: s.context for n, s in second.items()}
    contexts = [span.context for span in first.values() if span.context]
    assert len({context.span_id for context in contexts}) == len(first)
    assert len({context.trace_id for context in contexts}) == 1


def test_a_held_build_ends_with_its_verdict(ledger: Ledger) -> None:
    running(ledger)
    verdict = {"epoch": 1, "result": Result.FAILURE, "reason": Reason.EXIT_CODE}
    ledger.builds.advance("b-1", epoch=1, to=BuildState.COLLECTING, now=105.0)
    ledger.builds.hold("b-1", **verdict, now=106.0, hold_until=150.0)
    held = exported(ledger, "b-1")
    ledger.builds.finish("b-1", **verdict, now=140.0)
    over = exported(ledger, "b-1")
    assert {n: (s.start_time, s.end_time) for n, s in held.items()} == {
        n: (s.start_time, s.end_time) for n, s in over.items()
    }
    assert held["RUN build"].end_time == 106 * NANO


def test_a_parent_that_is_not_sampled_leaves_nothing(ledger: Ledger) -> None:
    assert exported(ledger, ended(ledger, parent=PARENT[:-1] + "0")) == {}


# --- the parent ----------------------------------------------------------------------------------


def log_of(http: Service, build: str) -> str:
    return http.client().get(f"/api/v1/builds/{build}/logs").text


def test_a_build_is_its_callers_child_and_its_steps_parent(http: Service) -> None:
    ledger = http.app.ledger
    steps = {"steps": ["env TRACEPARENT"]}
    given = {"traceparent": PARENT}
    alone = only(http.client().post("/api/v1/builds", json=steps))["id"]
    passed = only(http.client().post("/api/v1/builds", json=steps, headers=given))["id"]
    for build in (alone, passed):
        http.ended(build)
    assert log_of(http, alone) == "\n"
    assert log_of(http, passed) == PARENT + "\n"  # nobody exports ours: theirs is the nearest
    ledger.outbox.declare(traces.endpoints({"OTEL_TRACES_EXPORTER": "otlp"}), time.time())
    child = only(http.client().post("/api/v1/builds", json=steps, headers=given))["id"]
    http.ended(child)
    root = exported(ledger, child)["RUN build"]
    assert root.context is not None
    assert root.parent is not None
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == tuple(
        PARENT.split("-")[1:3]
    )
    assert log_of(http, child) == f"{PARENT[:36]}{root.context.span_id:016x}-01\n"
    assert [notice.subject for notice in ledger.outbox.waiting(TRACES, time.time(), 9)] == [child]


def test_the_submitters_environment_has_the_parent(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    here = http.runner.run("env TRACEPARENT").id
    with vmrunner.Runner(url=http.url, token=http.token()) as client:
        traced = client.run("env TRACEPARENT", env={"TRACEPARENT": "the user's own"}).id
    assert log_of(http, here) == PARENT + "\n"
    assert log_of(http, traced) == "the user's own\n"
    for build in (here, traced):
        parent = http.app.ledger.events.first(build, EventKind.TRACE)
        assert str(trace_context.told_by(parent)) == PARENT


def test_a_build_and_its_parent_are_one_write(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that is queued, though its submitter was told of an error, is submitted again."""
    ledger = http.app.ledger

    def broken(*_: object, **__: object) -> None:
        raise LedgerError("the power failed")

    monkeypatch.setattr(ledger.events, "add", broken)
    monkeypatch.setattr(builds, "add_event", broken)
    options: Any = {"json": {"steps": ["true"]}, "headers": {"traceparent": PARENT}}
    assert http.client().post("/api/v1/builds", **options).status_code == 503
    assert ledger.builds.list() == []


# --- OTLP ----------------------------------------------------------------------------------------


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=core")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-ci")
    yield found
    found.close()


def test_spans_reach_a_collector_at_least_once(ledger: Ledger, collector: Collector) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    ledger.outbox.declare(traces.endpoints(environ), time.time())
    ended(ledger)
    collector.codes = [400]
    (send,) = traces.senders(ledger, environ, "").values()
    send()
    assert "did not take" in ledger.outbox.status()[0].error
    exporter = TraceExporter()

    def again(*_: object) -> str:
        return traces.export(ledger, exporter, "b-1", "")

    OutboxSender(ledger, TRACES, again, clock=lambda: time.time() + 60).run()
    assert ledger.outbox.status()[0].waiting == 0
    first, second = collector.requests
    assert first == second
    (resource,) = second.resource_spans
    values = {
        attribute.key: attribute.value.string_value for attribute in resource.resource.attributes
    }
    assert values["service.name"] == "our-ci"
    (scope,) = resource.scope_spans
    assert scope.scope.name == "vmrunner"
    assert [span.name for span in scope.spans][:2] == ["RUN nightly", "queued"]
    assert scope.spans[1].parent_span_id == scope.spans[0].span_id
    headers = collector.headers[0]
    assert (headers["path"], headers["x-team"]) == ("/v1/traces", "core")


@pytest.mark.parametrize("code", [302, 307, 304])
def test_a_redirect_takes_no_spans(ledger: Ledger, collector: Collector, code: int) -> None:
    """As a login in front of the collector answers."""
    ended(ledger)
    collector.codes = [code]
    assert "did not take" in traces.export(ledger, TraceExporter(), "b-1", "")
    assert len(collector.requests) == 1


def test_a_redirect_that_is_refused_keeps_no_connection(collector: Collector) -> None:
    """Else a collector behind a login holds a socket of ours for each ended build."""
    collector.codes = [302]
    session = otlp._straight()
    assert session is not None
    with pytest.raises(requests.RequestException) as refused:
        session.post(collector.url, ExportTraceServiceRequest().SerializeToString())
    assert refused.value.response is not None
    assert refused.value.response.raw.closed


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], wanted: bool) -> None:
    assert bool(traces.endpoints(environ)) is wanted


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys; from vmrunner.services import outbox_senders, traces;"
        "assert traces.senders(None, {}, '') == {};"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_it_is_said(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces.importlib.util, "find_spec", lambda _: None)
    assert traces.senders(ledger, {"OTEL_TRACES_EXPORTER": "otlp"}, "") == {}
    assert "vmrunner[otel]" in caplog.text


def test_a_collector_that_is_down_is_an_answer(ledger: Ledger) -> None:
    class Down(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.FAILURE

    assert traces.export(ledger, TraceExporter(Down()), ended(ledger), "")
