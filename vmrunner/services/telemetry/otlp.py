"""The way of spans to an OTLP collector, configured by the standard OTEL_* variables alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from vmrunner.core.trace_context import TraceContext

if TYPE_CHECKING:
    from vmrunner.services.telemetry.spans import SpanData

_NANO: Final = 1_000_000_000
#: Variables that name a session of the operator's.
_SESSIONS: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)


class _GivenIds(IdGenerator):
    """Ids that are known beforehand."""

    def __init__(self, trace_id: str, span_ids: Iterable[str]) -> None:
        self._trace_id = int(trace_id, 16)
        self._span_ids = deque(int(span_id, 16) for span_id in span_ids)

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_ids.popleft()


class _Collected(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class TraceExporter:
    """One collector. `exporter` stands in for the one that the environment describes."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._exporter = exporter or OTLPSpanExporter(session=_straight())
        ours = Resource({"service.name": "vmrunner", "service.version": version("vmrunner")})
        self._resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())

    def export(self, spans: list[SpanData], own: TraceContext, parent: TraceContext | None) -> str:
        """Send the spans of one trace, parents first. `own`: the context of the first of them,
        `parent`: whose child that is. Return why they were not taken; empty when they were, or
        none is to be sampled."""
        made = self._made(spans, own, parent)
        if not made or self._exporter.export(made) is SpanExportResult.SUCCESS:
            return ""
        return "the collector did not take the spans"

    def _made(
        self, spans: list[SpanData], own: TraceContext, parent: TraceContext | None
    ) -> list[ReadableSpan]:
        provider = TracerProvider(
            resource=self._resource,
            id_generator=_GivenIds(own.trace_id, (span.id for span in spans)),
            shutdown_on_exit=False,
        )
        collected = _Collected()
        provider.add_span_processor(collected)
        tracer = provider.get_tracer("vmrunner", version("vmrunner"))
        contexts: dict[str, SpanContext] = {}
        if parent is not None:
            contexts[parent.span_id] = _context(parent)
        for item in spans:
            above = contexts.get(item.parent or "")
            within = trace.set_span_in_context(trace.NonRecordingSpan(above)) if above else None
            span = tracer.start_span(
                item.name,
                context=within,
                kind=SpanKind.SERVER if item.entry else SpanKind.INTERNAL,
                attributes=dict(item.attributes),
                start_time=int(item.start * _NANO),
            )
            if item.error:
                span.set_status(Status(StatusCode.ERROR, item.error))
            span.end(end_time=int(item.end * _NANO))
            contexts[item.id] = span.get_span_context()
        return collected.spans


def _straight() -> requests.Session | None:
    """A session for which a redirect is a failure: the exporter takes it for a success. None where
    the environment names one of its own."""
    if any(map(os.environ.get, _SESSIONS)):
        return None
    session = requests.Session()
    session.hooks["response"].append(_refuse_redirect)
    return session


def _refuse_redirect(answer: requests.Response, **_: object) -> None:
    if 300 <= answer.status_code < 400:
        answer.close()  # the caller never has it
        text = f"{answer.status_code}, and no redirect is followed"
        raise requests.RequestException(text, response=answer)


def _context(of: TraceContext) -> SpanContext:
    return SpanContext(
        trace_id=int(of.trace_id, 16),
        span_id=int(of.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if of.sampled else TraceFlags.DEFAULT),
    )
