"""Prices as AWS tells them: the price list for what is bought on demand, the history of the last
hour for spot."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import PRODUCTS, SPOT_PRICES, Ec2Client
from vmrunner.providers.ec2.prices import ADDRESS, DISK, SPOT

log = logging.getLogger("vmrunner.prices")

#: The price list is told there for all regions of the world but China's.
_REGION: Final = "us-east-1"
_PAGES: Final = 20  # of one question at most
_LINUX: Final = "Linux/UNIX"
_HOURLY: Final = ("Hrs", "Hours")
_MONTHLY: Final = "GB-Mo"
_MACHINE: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
_VOLUME: Final = {"productFamily": "Storage", "volumeApiName": "gp3"}
_IN_USE: Final = {"group": "VPCPublicIPv4Address"}


def fetch(client: Ec2Client, region: str, types: Sequence[str], now: float) -> dict[str, float]:
    """Return USD an hour by item, as far as AWS tells. Raises `CallFailed`."""
    found: dict[str, float] = {}
    for name in types:
        prices = _products(client, "AmazonEC2", regionCode=region, instanceType=name, **_MACHINE)
        found |= _one(name, [usd for unit, usd, _ in prices if unit in _HOURLY and usd])
    disks = _products(client, "AmazonEC2", regionCode=region, **_VOLUME)
    found |= _one(DISK, [usd / HOURS_OF_MONTH for unit, usd, _ in disks if unit == _MONTHLY])
    addresses = _products(client, "AmazonVPC", regionCode=region, **_IN_USE)
    in_use = [usd for unit, usd, usage in addresses if unit in _HOURLY and "InUse" in usage]
    found |= _one(ADDRESS, in_use)
    try:
        return found | _spot(client, region, types, now)
    except CallFailed as failed:  # another right than the price list's
        log.warning("spot prices of %s: %s", region, failed)
        return found


def _one(item: str, prices: list[float]) -> dict[str, float]:
    """Return the highest of several: nothing costs more than was said."""
    return {item: max(prices)} if prices else {}


def _products(
    client: Ec2Client, service: str, **attributes: str
) -> Iterator[tuple[str, float, str]]:
    """Yield unit, USD and usage type of all on-demand prices of such products."""
    filters = [
        {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in attributes.items()
    ]
    page: dict[str, Any] = {}
    for _ in range(_PAGES):
        answer = client(_REGION, PRODUCTS, ServiceCode=service, Filters=filters, **page)
        for text in answer["PriceList"]:
            yield from _prices(json.loads(text))
        if not answer.get("NextToken"):
            return
        page = {"NextToken": answer["NextToken"]}


def _prices(product: Any) -> Iterator[tuple[str, float, str]]:
    usage = str(product.get("product", {}).get("attributes", {}).get("usagetype", ""))
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            usd = dimension.get("pricePerUnit", {}).get("USD")
            if usd is not None:
                yield str(dimension.get("unit", "")), float(usd), usage


def _spot(client: Ec2Client, region: str, types: Sequence[str], now: float) -> dict[str, float]:
    """Return the present price of each type, in its dearest zone."""
    answer = client(
        region,
        SPOT_PRICES,
        InstanceTypes=list(types),
        ProductDescriptions=[_LINUX],
        StartTime=datetime.fromtimestamp(now, UTC),
        MaxResults=1000,
    )
    found: dict[str, float] = {}
    for price in answer["SpotPriceHistory"]:
        item = f"{price['InstanceType']}{SPOT}"
        found[item] = max(found.get(item, 0.0), float(price["SpotPrice"]))
    return found
