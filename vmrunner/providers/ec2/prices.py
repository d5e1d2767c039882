"""Items that EC2 bills, and USD an hour of each, on demand, Linux, in its cheapest large region:
for "what does this roughly cost" where the price list was not read yet, never for an invoice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.model import Bill, Market, Offer
from vmrunner.providers.common.cloud_options import GiB

ADDRESS: Final = "public IPv4"
DISK: Final = "gp3 GiB"  # as our images have it
SPOT: Final = " spot"  # behind a machine type
_SPOT_SHARE: Final = 0.4  # of the on-demand price; it moves by the hour, this is a middle value

_TYPES: Final[Mapping[str, float]] = {
    "t3.micro": 0.0104,
    "t3.small": 0.0208,
    "t3.medium": 0.0416,
    "t3.large": 0.0832,
    "m5.large": 0.096,
    "m5.xlarge": 0.192,
    "m6i.large": 0.096,
    "m6i.xlarge": 0.192,
    "m7i.large": 0.1008,
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "m7g.large": 0.0816,
    "m7g.xlarge": 0.1632,
}
USD_HOUR: Final[Mapping[str, float]] = {
    **_TYPES,
    **{f"{name}{SPOT}": usd * _SPOT_SHARE for name, usd in _TYPES.items()},
    DISK: 0.08 / HOURS_OF_MONTH,
    ADDRESS: 0.005,
}


def bill(offer: Offer, *, public: bool) -> Bill:
    """Parts that a VM of this offer is billed for. A VM that is stopped has no address."""
    machine = offer.machine_type + (SPOT if offer.market is Market.SPOT else "")
    disk = {DISK: offer.disk / GiB}
    return Bill(on={machine: 1.0, **disk, **({ADDRESS: 1.0} if public else {})}, parked=disk)
