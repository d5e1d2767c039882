"""Trace contexts."""

from __future__ import annotations

import pytest

from vmrunner.core import trace_context
from vmrunner.core.trace_context import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN)),
        (f" 00-{TRACE}-{SPAN}-00\n", TraceContext(TRACE, SPAN, sampled=False)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", TraceContext(TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_what_the_standard_takes_is_taken(text: str, found: TraceContext | None) -> None:
    assert trace_context.parse(text) == found


def test_a_build_is_in_its_parents_trace_or_its_own() -> None:
    parent = TraceContext(TRACE, SPAN, sampled=False)
    child = trace_context.of_build("i", "b-1", parent)
    assert (child.trace_id, child.sampled) == (TRACE, False)
    alone = trace_context.of_build("i", "b-1", None)
    assert alone == trace_context.of_build("i", "b-1", None)
    assert alone.trace_id != trace_context.of_build("other", "b-1", None).trace_id
    for context in (child, alone):
        assert trace_context.parse(str(context)) == context
