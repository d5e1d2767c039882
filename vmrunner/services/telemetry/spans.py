"""Spans as they are made, before any SDK is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanData:
    """One span of a trace. Times are epoch seconds; `parent` and `id` are 16 hex digits. `error`:
    why it is one; empty: it is none. `entry`: it answers a call from outside."""

    id: str
    parent: str | None
    name: str
    start: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    entry: bool = False
