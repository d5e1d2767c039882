"""Sizes of pools: as set, by schedule, or by demand, within what they may cost."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from vmrunner.core import pricing
from vmrunner.core.pool_sizing import (
    DEFAULT_LEAD_TIME,
    Arrivals,
    affordable_size,
    demanded_size,
    scheduled_size,
)
from vmrunner.engine.context import EngineContext
from vmrunner.model import Instance, Offer, Pool, Role

RENEW: Final = 10.0  # seconds that a size holds
OBSERVE: Final = 60.0  # seconds between looks at what arrived
LATE: Final = 5.0  # seconds in which a build that was started is sure to be seen
LEADS: Final = 50  # times from an order until a VM was ready, the latest, that are remembered
#: With fewer arrivals expected while a VM may wait, most likely no build would come.
WORTH_ONE: Final = 0.5


class PoolSize(NamedTuple):
    """Size of a pool now. `capped`: it would be more, but for what they cost."""

    want: int
    capped: bool = False


class PoolSizer:
    """The sizes of one engine's pools. Used by the tick's thread alone."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._leads: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LEADS))
        self._arrivals: dict[str, Arrivals] = {}
        self._observed: dict[str, float] = {}  # monotonic
        self._sizes: dict[str, tuple[tuple[int, int | None], float, PoolSize]] = {}

    def ready(self, row: Instance, now: float) -> None:
        """A VM of a pool is ready: its time from the order until now is a lead time."""
        self._leads[row.pool or ""].append(now - row.created_at)

    def size(self, pool: Pool, place: str, offers: Sequence[Offer], now: float) -> PoolSize:
        """Return the size of a pool whose VMs would be of the first offer. `place`: as in
        `PoolPlace`; `now` is its provider's clock."""
        wanted, monotonic = (pool.revision, pool.size), self._context.monotonic()
        cached = self._sizes.get(pool.name)
        if cached is None or cached[0] != wanted or monotonic - cached[1] >= RENEW:
            cached = self._sizes[pool.name] = (
                wanted,
                monotonic,
                self._size(pool, place, offers, now),
            )
        return cached[2]

    def _size(self, pool: Pool, place: str, offers: Sequence[Offer], now: float) -> PoolSize:
        wanted = self._wanted(pool, place, now)
        spec = pool.spec
        if spec.usd_per_day is None or not wanted or not offers:
            return PoolSize(wanted)
        today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        spent = sum(
            pricing.idle_cost(row, today.timestamp(), now)
            for row in self._context.ledger.pools.instances(pool.name, today.timestamp())
        )
        hourly = self._context.rate(spec.provider, offers[0], Role.POOL).usd_hour or 0.0
        affordable = affordable_size(wanted, hourly, spec.usd_per_day, spent, now)
        return PoolSize(affordable, capped=affordable < wanted)

    def _wanted(self, pool: Pool, place: str, now: float) -> int:
        spec = pool.spec
        if pool.size is not None:
            return pool.size
        if spec.size is not None:
            return spec.size
        if spec.schedule:
            return scheduled_size(spec.schedule, now)
        return self._demanded(pool, place)

    def _demanded(self, pool: Pool, place: str) -> int:
        spec, now = pool.spec, self._context.clock()  # by which starts are noted
        leads = list(self._leads[pool.name]) or [DEFAULT_LEAD_TIME]
        arrivals = self._seen(pool.name, place, now, max(leads))
        rate = arrivals.rate(now, max(leads))
        if rate * spec.idle < WORTH_ONE:
            return spec.least
        batch = arrivals.batch(max(leads))
        return demanded_size(rate, leads, spec.hit_rate or 0.0, spec.least, spec.most, batch)

    def _seen(self, name: str, place: str, now: float, lead_time: float) -> Arrivals:
        """The arrivals so far, folded in now and then, and kept in the ledger."""
        monotonic = self._context.monotonic()
        arrivals = self._arrivals.get(name)
        if arrivals is not None and monotonic - self._observed[name] < OBSERVE:
            return arrivals
        pools = self._context.ledger.pools
        if arrivals is None:
            stored = json.loads(pools.stored_arrivals(name, place))
            arrivals = Arrivals.load(stored) if stored else Arrivals(until=now)
        until = max(arrivals.until, now - LATE)
        arrivals = arrivals.observed(pools.arrivals(name, place, arrivals.until), until, lead_time)
        pools.store_arrivals(name, place, json.dumps(arrivals.dump()))
        self._arrivals[name], self._observed[name] = arrivals, monotonic
        return arrivals
