"""Items that Compute Engine bills, and USD an hour of each, on demand, Linux, in its cheapest large
region: for "what does this roughly cost" where the catalog was not read yet, never for an invoice.

Google bills processors and memory; here each machine type has one price, made of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.model import Bill, Market, Offer
from vmrunner.providers.common.cloud_options import GiB

ADDRESS: Final = "external IPv4"
SPOT: Final = " spot"  # behind a machine type, or the address of such a machine
_SPOT_SHARE: Final = 0.4  # of the on-demand price; it moves, this is a middle value

_TYPES: Final[Mapping[str, float]] = {
    "e2-micro": 0.0084,
    "e2-small": 0.0168,
    "e2-medium": 0.0335,
    "e2-standard-2": 0.067,
    "e2-standard-4": 0.134,
    "e2-standard-8": 0.268,
    "n2-standard-2": 0.0971,
    "n2-standard-4": 0.1942,
    "c3-standard-4": 0.2009,
}
_DISKS: Final[Mapping[str, float]] = {  # by the month
    "pd-standard": 0.04,
    "pd-balanced": 0.10,
    "pd-ssd": 0.17,
    "hyperdisk-balanced": 0.08,
}
USD_HOUR: Final[Mapping[str, float]] = {
    **_TYPES,
    **{f"{name}{SPOT}": usd * _SPOT_SHARE for name, usd in _TYPES.items()},
    **{f"{name} GiB": usd / HOURS_OF_MONTH for name, usd in _DISKS.items()},
    ADDRESS: 0.005,
    ADDRESS + SPOT: 0.0025,
}


def disk(disk_type: str) -> str:
    """Return the item of a disk's size."""
    return f"{disk_type} GiB"


def bill(offer: Offer, disk_type: str, *, public: bool) -> Bill:
    """Parts that a VM of this offer is billed for. A VM that is suspended has no address, and its
    memory is stored: that is counted as so much more of its disk."""
    spot = SPOT if offer.market is Market.SPOT else ""
    size, memory = offer.disk / GiB, offer.memory / GiB
    on = {offer.machine_type + spot: 1.0, disk(disk_type): size}
    if public:
        on[ADDRESS + spot] = 1.0
    return Bill(on=on, parked={disk(disk_type): size + memory})
