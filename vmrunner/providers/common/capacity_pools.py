"""Machines that can be asked for, in order, and the pools of them that were dry a moment ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from vmrunner.errors import BadOrder, NoCapacity, QuotaExceeded
from vmrunner.model import Market, Offer
from vmrunner.providers.common.call_failed import CallFailed

Spot = Literal["never", "prefer", "only"]

#: So long a burst waits for its turn, in seconds, before it is the engine's to ask again.
CREATE_TIMEOUT: Final = 60.0
#: So long a pool without capacity is not asked again, in seconds.
DRY: Final = 120.0


class CapacityPool(NamedTuple):
    """A pool of machines that runs dry as one."""

    machine_type: str
    place: str  # a subnet, or a zone
    market: Market


def pool_of(offer: Offer) -> CapacityPool:
    return CapacityPool(offer.machine_type, offer.place, offer.market)


def markets(configured: Spot | None, *, wanted: bool, name: str) -> tuple[Market, ...]:
    """Markets to try, best first. `configured`: by the provider's configuration (None: nothing);
    `wanted`: by the build. Raises `BadOrder` for a request that the configuration forbids."""
    if configured == "only":
        return (Market.SPOT,)
    if configured == "never" and wanted:
        raise BadOrder(
            f"spot: {name} never uses it", hint=f"leave --spot out, or providers.{name}.spot"
        )
    if configured == "prefer" or wanted:
        return (Market.SPOT, Market.ON_DEMAND)
    return (Market.ON_DEMAND,)


def walk(
    markets: Sequence[Market], machine_types: Sequence[str], locations: Sequence[str]
) -> Iterator[CapacityPool]:
    """Yield all pools, best first: every pool of the better market before any of the worse, and
    within a market the types in order, each in every place."""
    for market in markets:
        for machine_type in machine_types:
            for place in locations:
                yield CapacityPool(machine_type, place, market)


class DryPools:
    """Remembers, for this process, which pools had nothing to give."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._dry: dict[CapacityPool, tuple[float, str]] = {}
        self._shut: dict[Market, tuple[float, str]] = {}

    def mark(self, pool: CapacityPool, why: str, seconds: float = DRY) -> None:
        """Note that a pool had nothing; `why` is the cloud's own word."""
        with self._lock:
            self._dry[pool] = (self._now() + seconds, why)

    def shut(self, market: Market, why: str) -> None:
        """The whole market has nothing for this account."""
        with self._lock:
            self._shut[market] = (self._now() + DRY, why)

    def failed(self, pool: CapacityPool, failed: CallFailed) -> None:
        """Note that a create failed, where that is for want of room or quota."""
        if isinstance(failed.error, (NoCapacity, QuotaExceeded)):
            self.mark(pool, failed.code)

    def clear(self, pool: CapacityPool) -> None:
        """Note that a pool gave a machine."""
        with self._lock:
            self._dry.pop(pool, None)
            self._shut.pop(pool.market, None)

    def without_dry(self, pools: Sequence[CapacityPool]) -> list[CapacityPool]:
        """Return the pools that may have something. Raises `NoCapacity` when none of them may."""
        now = self._now()
        with self._lock:
            dry = {p: (until - now, why) for p, (until, why) in self._dry.items() if until > now}
            self._dry = {pool: reason for pool, reason in self._dry.items() if pool in dry}
            shut = {m: (until - now, why) for m, (until, why) in self._shut.items() if until > now}
        dry |= {pool: shut[pool.market] for pool in pools if pool.market in shut}
        usable = [pool for pool in pools if pool not in dry]
        if pools and not usable:
            wait, why = min(dry[pool] for pool in pools)
            raise NoCapacity(
                f"all {len(pools)} pools were dry a moment ago: {why}",
                hint=f"the first is asked again in {wait:.0f} s; more types or places help",
            )
        return usable
