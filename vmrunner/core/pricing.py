"""What an instance costs, estimated over a dated table. Pure.

Prices are on-demand, Linux, USD an hour, the cheapest large region of each cloud; they are for
"what does this roughly cost", never for an invoice. QEMU machines are the user's own: 0.
"""

from __future__ import annotations

from typing import Final

from vmrunner.model import Instance, Market, Offer

PRICED: Final = "2025-01-01"

USD_HOUR: Final[dict[str, dict[str, float]]] = {
    "ec2": {
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
    },
    "gce": {
        "e2-micro": 0.0084,
        "e2-small": 0.0168,
        "e2-medium": 0.0335,
        "e2-standard-2": 0.067,
        "e2-standard-4": 0.134,
        "e2-standard-8": 0.268,
        "n2-standard-2": 0.0971,
        "n2-standard-4": 0.1942,
        "c3-standard-4": 0.2009,
    },
}

SPOT_SHARE: Final = 0.4  # of the on-demand price; it moves by the hour, this is a middle value
MINIMUM: Final = 60.0  # seconds billed at least, on EC2 and GCE alike


def usd_hour(kind: str, machine_type: str, market: Market = Market.ON_DEMAND) -> float:
    """The price of an hour; 0.0 when it costs nothing or the table does not know it."""
    price = USD_HOUR.get(kind, {}).get(machine_type, 0.0)
    return price * SPOT_SHARE if market is Market.SPOT else price


def rate(offer: Offer) -> float:
    """USD an hour of one offer: what its driver said, else the table."""
    return offer.usd_hour or usd_hour(offer.scope.kind, offer.machine_type, offer.market)


def cost(instance: Instance, now: float) -> float:
    """USD that one instance has cost until `now`, or until it was seen gone. A row that was never
    given a machine cost nothing."""
    hourly = rate(instance.offer)
    if hourly == 0.0 or instance.ref is None:
        return 0.0
    until = instance.gone_at if instance.gone_at is not None else now
    return hourly * max(MINIMUM, until - instance.created_at) / 3600
