"""Estimated cost of an instance. Pure: its driver has the prices, on demand, USD an hour by
machine type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.model import Instance, InstanceState, Market, Offer, Start

SPOT_SHARE: Final = 0.4  # of the on-demand price; it moves by the hour, this is a middle value
MINIMUM: Final = 60.0  # seconds billed at least, on EC2 and GCE alike


def rate(offer: Offer, prices: Mapping[str, float]) -> float:
    """USD an hour of one offer: what its driver said, else by the table; 0.0 when it costs nothing
    or the table does not know it."""
    if offer.usd_hour:
        return offer.usd_hour
    price = prices.get(offer.machine_type, 0.0)
    return price * SPOT_SHARE if offer.market is Market.SPOT else price


def cost(instance: Instance, now: float, prices: Mapping[str, float]) -> float:
    """USD that one instance has cost its build until `now`, or until it was seen gone: before the
    claim its pool pays. A row that was never given a machine cost nothing."""
    hourly = rate(instance.offer, prices)
    if hourly == 0.0 or instance.ref is None:
        return 0.0
    until = instance.gone_at if instance.gone_at is not None else now
    least = MINIMUM if instance.claimed_at is None else 0.0
    return hourly * max(least, until - instance.begun) / 3600


def idle_cost(instance: Instance, since: float, now: float, prices: Mapping[str, float]) -> float:
    """USD that a pool's VM has cost between `since` and `now` while no build had it. Once it is
    parked only its disk bills, which is not counted; of one that was parked and claimed nothing
    is."""
    if instance.ref is None or instance.pool is None or instance.start is Start.PARKED:
        return 0.0
    if instance.state is InstanceState.PARKED:
        now = min(now, instance.state_since)
    ends = [now, *(at for at in (instance.claimed_at, instance.gone_at) if at is not None)]
    return (
        rate(instance.offer, prices) * max(0.0, min(ends) - max(since, instance.created_at)) / 3600
    )
