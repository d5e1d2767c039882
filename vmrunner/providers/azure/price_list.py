"""Azure's public prices, by its retail price API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.errors import Uncertain
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.prices import ADDRESS, SPOT

PRICES: Final = "https://prices.azure.com"
_PATH: Final = "/api/retail/prices"
_PAGES: Final = 100
_TIMEOUT: Final = 30.0  # seconds of one page
_DISK: Final = re.compile(r"[EPS]\d+ (?:LRS|ZRS) Disk", re.IGNORECASE)


def fetch(options: AzureOptions, names: Iterable[str]) -> dict[str, float]:
    """Return USD an hour by item of the location, as far as it tells. Raises `Uncertain`."""
    in_region = f"armRegionName eq '{options.location}'"
    wanted = (
        *(
            f"serviceName eq 'Virtual Machines' and armSkuName eq '{n}' and {in_region}"
            for n in names
        ),
        f"serviceName eq 'Storage' and {in_region} and contains(productName, 'Managed Disks')",
        "serviceName eq 'Virtual Network' and meterName eq 'Standard IPv4 Static Public IP'",
    )
    return items(item for what in wanted for item in _listed(options, what))


def items(entries: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return USD an hour by item of the bill. Of several prices of a thing the highest."""
    found: dict[str, float] = {}
    for entry in entries:
        item = _item(entry)
        usd = float(entry.get("retailPrice") or 0.0)
        plain = entry.get("type") == "Consumption" and entry.get("currencyCode") == "USD"
        if item and usd > 0 and plain:
            per = HOURS_OF_MONTH if str(entry.get("unitOfMeasure")) == "1/Month" else 1.0
            found[item] = max(found.get(item, 0.0), usd / per)
    return found


def _item(entry: Mapping[str, Any]) -> str:
    """Return the item of the bill that this is the price of; "": none."""
    service, meter = entry.get("serviceName"), str(entry.get("meterName", ""))
    if service == "Virtual Network":
        return ADDRESS
    if service == "Storage":
        return meter[:-4] + "disk" if _DISK.fullmatch(meter) else ""
    names = f"{entry.get('skuName', '')} {entry.get('productName', '')}"
    if "Windows" in names or "Low Priority" in names or "Cloud Services" in names:
        return ""
    name = str(entry.get("armSkuName", ""))
    return name + SPOT if str(entry.get("skuName", "")).endswith(" Spot") else name


def _listed(options: AzureOptions, wanted: str) -> Iterator[Mapping[str, Any]]:
    base = options.base if options.plain else PRICES  # a local endpoint answers for all of Azure
    url, params = f"{base}{_PATH}", {"$filter": wanted, "api-version": "2023-01-01-preview"}
    try:
        with requests.Session() as session:
            session.trust_env = not options.plain
            for _ in range(_PAGES):
                answer = session.get(url, params=params, timeout=_TIMEOUT, allow_redirects=False)
                answer.raise_for_status()
                document = answer.json()
                yield from document.get("Items") or ()
                url, params = str(document.get("NextPageLink") or ""), {}
                if urlsplit(url).netloc.partition(":")[0] != urlsplit(base).hostname:
                    return
    except (requests.RequestException, ValueError) as error:
        raise Uncertain(f"the list of prices: {error}") from error
