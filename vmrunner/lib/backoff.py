"""Waits before what failed is tried again. Pure."""

from __future__ import annotations

from typing import Final

_MOST_DOUBLINGS: Final = 16


def backoff(first: float, failures: int, longest: float) -> float:
    """Seconds: `first`, doubled with each earlier failure, at most `longest`."""
    return float(min(first * 2 ** min(failures, _MOST_DOUBLINGS), longest))
