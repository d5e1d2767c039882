"""Limits as a cloud's own pages tell them: what a local cloud holds its callers to. The numbers are
the vendor's, never our driver's."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

#: What `VendorLimit.read` says of a page that was read in an archive's copy, and of
#: one that could not be had: its number is from memory.
STORED_COPY: Final = "read in a stored copy, 2026-12-01"
NOT_READ: Final = "not read"


class VendorLimit(NamedTuple):
    """One line of a table. `page`: where the vendor says it; `read`: how and when it was read."""

    value: float
    page: str
    read: str = STORED_COPY


class CallRate(NamedTuple):
    """So many calls at once, and so many more a second."""

    burst: VendorLimit
    refill: VendorLimit


class RequestBuckets:
    """Token buckets, by the cloud's clock: what requests take comes back bit by bit."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tokens: dict[Hashable, tuple[float, float]] = {}  # tokens at a time

    def take(self, key: Hashable, rate: CallRate, count: int = 1) -> bool:
        """Take so many tokens of the bucket `key`. False: there are too few, and none is taken."""
        now = self._now()
        tokens, at = self._tokens.get(key, (rate.burst.value, now))
        tokens = min(rate.burst.value, tokens + max(0.0, now - at) * rate.refill.value)
        granted = tokens >= count
        self._tokens[key] = (tokens - count * granted, now)
        return granted


class MinuteCounts:
    """Calls in each minute of the cloud's clock: all that a minute allows may come at once, and
    nothing comes back before the next one begins."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: dict[Hashable, tuple[int, int]] = {}  # calls in a minute

    def take(self, key: Hashable, limit: VendorLimit) -> bool:
        """Count one call of `key`. False: the minute's calls are used up."""
        minute = int(self._now() // 60)
        counted, count = self._counts.get(key, (minute, 0))
        count = count if counted == minute else 0
        granted = count < limit.value
        self._counts[key] = (minute, count + granted)
        return granted
