"""Trace contexts (W3C): the one that a submitter gave, and the one that a build's steps get. Pure.

A build's own ids follow from its name, so its spans are the same wherever and however often they
are made.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from vmrunner.model import BuildEvent

_HEADER: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span, as others name it."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse(text: str) -> TraceContext | None:
    """Read a `traceparent`; None for what is none, as the standard wants it."""
    found = _HEADER.fullmatch(text.strip())
    if found is None or (found[1] == "00" and len(text.strip()) != 55):
        return None
    return TraceContext(found[2], found[3], bool(int(found[4], 16) & _SAMPLED))


def told_by(event: BuildEvent | None) -> TraceContext | None:
    """The context that a build's submitter gave, from its event; None: there is none."""
    return None if event is None else parse(str(event.data.get("traceparent", "")))


def of_build(installation: str, build: str, parent: TraceContext | None) -> TraceContext:
    """Return the context of a build's own span."""
    trace = parent.trace_id if parent else _hash(f"{installation}/{build}", 32)
    sampled = parent.sampled if parent else True
    return TraceContext(trace, span_id(build, "build"), sampled)


def span_id(build: str, what: str) -> str:
    """Return the id of one of a build's spans."""
    return _hash(f"{build}/{what}", 16)


def _hash(text: str, characters: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:characters]
