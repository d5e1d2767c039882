"""Items that Azure bills, and USD an hour of each, on demand, Linux, in its cheapest large region:
for "what does this roughly cost" where the price list was not read yet, never for an invoice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.model import Bill, Market, Offer
from vmrunner.providers.common.cloud_options import GiB

ADDRESS: Final = "Standard IPv4"
SPOT: Final = " spot"  # behind a machine type
_SPOT_SHARE: Final = 0.4  # of the on-demand price; it moves, this is a middle value

_TYPES: Final[Mapping[str, float]] = {
    "Standard_B2s": 0.0416,
    "Standard_D2s_v5": 0.096,
    "Standard_D4s_v5": 0.192,
    "Standard_D8s_v5": 0.384,
    "Standard_D2ds_v5": 0.113,
    "Standard_D4ds_v5": 0.226,
    "Standard_D2as_v5": 0.086,
    "Standard_D4as_v5": 0.172,
    "Standard_F4s_v2": 0.169,
}
_DISKS: Final[Mapping[str, float]] = {  # by the month
    "E4": 2.40,
    "E6": 4.80,
    "E10": 9.60,
    "E15": 19.20,
    "P4": 5.28,
    "P6": 10.21,
    "P10": 19.71,
    "P15": 38.02,
    "S4": 1.54,
    "S6": 3.01,
    "S10": 5.89,
    "S15": 11.33,
}
USD_HOUR: Final[Mapping[str, float]] = {
    **_TYPES,
    **{f"{name}{SPOT}": usd * _SPOT_SHARE for name, usd in _TYPES.items()},
    **{f"{name} LRS disk": usd / HOURS_OF_MONTH for name, usd in _DISKS.items()},
    ADDRESS: 0.005,
}
#: Disks are billed by the smallest of these that holds them, in GiB.
_TIERS: Final = {1: 4, 2: 8, 3: 16, 4: 32, 6: 64, 10: 128, 15: 256, 20: 512, 30: 1024, 40: 2048}
_LETTERS: Final = {"Premium": "P", "StandardSSD": "E", "Standard": "S"}


def disk(disk_type: str, size: int) -> str:
    """Return the item of a disk of so many bytes: `E4 LRS disk`."""
    family, _, copies = disk_type.partition("_")
    letter = _LETTERS.get(family, family)
    least = 4 if letter == "S" else 1
    tier = next((t for t, most in _TIERS.items() if t >= least and size <= most * GiB), 40)
    return f"{letter}{tier} {copies} disk"


def bill(offer: Offer, disk_type: str | None, *, public: bool) -> Bill:
    """Parts that a VM of this offer is billed for. `disk_type` None: its disk is its host's, and
    costs nothing. A VM that is deallocated keeps its disk and its address."""
    spot = SPOT if offer.market is Market.SPOT else ""
    kept: dict[str, float] = {}
    if disk_type is not None and offer.disk:
        kept[disk(disk_type, offer.disk)] = 1.0
    if public:
        kept[ADDRESS] = 1.0
    return Bill(on={offer.machine_type + spot: 1.0, **kept}, parked=kept)
