"""Rates and costs of VMs. Pure: prices come from the ledger, where the cloud's own are kept, and
from the table that a driver ships."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from vmrunner.model import Bill, Cost, Instance, InstanceState, MadeImage, Price, PriceSource, Rate

MINIMUM: Final = 60.0  # seconds billed at least, on EC2 and GCE alike
HOURS_OF_MONTH: Final = 730.0  # as clouds turn a price by the month into one by the hour
_HOUR: Final = 3600.0
_SOURCES: Final = tuple(PriceSource)  # the surest first


class Billed(NamedTuple):
    """One stretch of a VM's life at one rate; None: unknown."""

    start: float
    end: float
    usd_hour: float | None

    def seconds(self, since: float = -math.inf, until: float = math.inf) -> float:
        """Seconds of the part that lies between these times."""
        return max(0.0, min(self.end, until) - max(self.start, since))

    def usd(self, since: float = -math.inf, until: float = math.inf) -> float | None:
        """USD of the same part; None: the rate is unknown."""
        seconds = self.seconds(since, until)
        if not seconds:
            return 0.0
        return None if self.usd_hour is None else self.usd_hour * seconds / _HOUR


def rate(bill: Bill, quoted: Mapping[str, Price], shipped: Mapping[str, Price]) -> Rate:
    """The rate of a VM by its cloud's quoted prices, else by the shipped table. Where any part has
    no price, the whole has none."""
    prices = {item: quoted.get(item) or shipped.get(item) for item in (*bill.on, *bill.parked)}
    on, parked = _sum(bill.on, prices), _sum(bill.parked, prices)
    found = [price for item in bill.on if (price := prices[item]) is not None]
    if on is None or not found:
        return Rate()
    return Rate(
        usd_hour=on,
        parked_usd_hour=parked,
        source=PriceSource.CLOUD if bill.on.keys() <= quoted.keys() else PriceSource.SHIPPED,
        at=min(price.at for price in found),
    )


def _sum(items: Mapping[str, float], prices: Mapping[str, Price | None]) -> float | None:
    total = 0.0
    for item, amount in items.items():
        price = prices[item]
        if price is None:
            return None
        total += amount * price.usd_hour
    return total


def billed(row: Instance, now: float) -> Iterator[Billed]:
    """Yield what a VM was billed for until `now`, or until it was seen gone. A row that was never
    given a machine cost nothing."""
    if row.ref is None:
        return iter(())
    end = now if row.gone_at is None else row.gone_at
    return stretches(row.created_at, end, row.parked_at, row.claimed_at, row.rate)


def stretches(
    created: float, end: float, parked: float | None, claimed: float | None, rate: Rate
) -> Iterator[Billed]:
    """Yield what a VM was billed for that was there from `created` to `end`."""
    end = max(end, created + MINIMUM)
    parked = end if parked is None else parked
    woken = end if claimed is None else max(parked, claimed)
    yield Billed(created, parked, rate.usd_hour)
    if parked < end:
        yield Billed(parked, woken, rate.parked_usd_hour)
        yield Billed(woken, end, rate.usd_hour)


def image_billed(row: MadeImage, now: float) -> Billed:
    """The billed life of an image's builder."""
    return Billed(
        row.created_at, now if row.closed_at is None else row.closed_at, row.rate.usd_hour
    )


def cost(
    row: Instance, now: float, since: float = -math.inf, until: float = math.inf
) -> float | None:
    """USD that one VM has cost between these times; None: its price is unknown."""
    return added(part.usd(since, until) for part in billed(row, now))


def added(parts: Iterable[float | None]) -> float | None:
    """Return the sum; None as soon as one part is unknown."""
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def least_sure(sources: Iterable[PriceSource | None]) -> PriceSource | None:
    """Return the source that is trusted least of these."""
    known_sources = (source for source in sources if source is not None)
    return max(known_sources, key=_SOURCES.index, default=None)


def total(rows: Sequence[Instance], now: Callable[[Instance], float], *, over: bool) -> Cost:
    """The cost of a build's VMs from their births until `now`: what one cost while it waited in a
    pool is part of it. `over`: the build has ended, so that no other will come."""
    each = [cost(row, now(row)) for row in rows]
    rates = [row.rate for row in rows if row.ref is not None]
    return Cost(
        known=sum(usd for usd in each if usd is not None),
        unpriced=each.count(None),
        final=over and all(row.state is InstanceState.GONE for row in rows),
        source=least_sure(rate.source for rate in rates),
        at=min((rate.at for rate in rates if rate.at is not None), default=None),
    )


def idle_cost(row: Instance, since: float, now: float) -> float:
    """USD that a pool's VM has cost between `since` and `now` while no build had it; 0 while its
    price is unknown."""
    if row.pool is None:
        return 0.0
    until = now if row.claimed_at is None else row.claimed_at
    return cost(row, now, since, until) or 0.0
