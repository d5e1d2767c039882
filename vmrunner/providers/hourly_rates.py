"""The rate of a VM, before it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from vmrunner.core import pricing
from vmrunner.model import Bill, Offer, Price, PriceSource, Rate, Role
from vmrunner.providers import registry
from vmrunner.providers.port import Bills, Provider
from vmrunner.providers.retired_providers import present

log = logging.getLogger("vmrunner")


def rate_of(
    provider: Provider, offer: Offer, role: Role, prices: Mapping[str, Price], now: float
) -> Rate:
    """Rate of an offer in a role: as its driver said with it, else by its bill. `prices`: the
    prices that its cloud told. Makes no call; an error makes the rate unknown."""
    if offer.usd_hour:
        return Rate(usd_hour=offer.usd_hour, source=PriceSource.PROVIDER, at=now)
    driver = registry.find(offer.scope.kind)
    if driver is not None and driver.own_host:
        return Rate(usd_hour=0.0, parked_usd_hour=0.0, source=PriceSource.OWN)
    try:
        return pricing.rate(_bill(provider, offer, role), prices, registry.prices(offer.scope.kind))
    except Exception:  # a driver may be a third party's, and a start never waits for a price
        log.exception("the price of %s at %s", offer.machine_type, provider.name)
        return Rate()


def _bill(provider: Provider, offer: Offer, role: Role) -> Bill:
    """A driver that says nothing ships its prices by machine type."""
    driver = present(provider)
    if isinstance(driver, Bills):
        return driver.bill(offer, role)
    return Bill(on={offer.machine_type: 1.0})
