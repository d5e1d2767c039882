"""Limits as a cloud's own pages tell them: what a local cloud holds its callers to. The numbers are
the vendor's, never our driver's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class VendorLimit(NamedTuple):
    """One line of a table. `page`: where the vendor says it; `read`: the month it was read in."""

    value: float
    page: str
    read: str


class CallRate(NamedTuple):
    """So many calls at once, and so many more a second."""

    burst: VendorLimit
    refill: VendorLimit


class RequestBuckets:
    """The calls that are left of each limit, by the cloud's clock."""

    def __init__(self, rates: Mapping[str, CallRate], now: Callable[[], float]) -> None:
        self._rates, self._now = rates, now
        self._left: dict[str, tuple[float, float]] = {}  # tokens at a time

    def take(self, key: str) -> bool:
        """Take one call of the limit `key`. False: there is none left."""
        rate, now = self._rates[key], self._now()
        tokens, at = self._left.get(key, (rate.burst.value, now))
        tokens = min(rate.burst.value, tokens + (now - at) * rate.refill.value)
        self._left[key] = (tokens - (tokens >= 1), now)
        return tokens >= 1
