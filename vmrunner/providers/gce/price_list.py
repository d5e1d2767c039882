"""Prices as Google tells them, in the catalog of Cloud Billing. It has processors, memory, disks
and addresses; a machine type's price is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import requests
from google.auth import exceptions as auth_errors

from vmrunner.core.pricing import HOURS_OF_MONTH
from vmrunner.errors import Uncertain
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.common.machine_types import MachineType
from vmrunner.providers.gce import rest
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.prices import ADDRESS, SPOT, disk

BILLING: Final = "https://cloudbilling.googleapis.com"
_COMPUTE_ENGINE: Final = "6F81-5844-456A"  # the service's name in the catalog
_PAGES: Final = 100
_TIMEOUT: Final = 30.0  # seconds of one page
_PART: Final = re.compile(
    r"(?:Spot Preemptible )?(?P<family>\w+?)(?: Predefined| AMD| Arm)? Instance "
    r"(?P<part>Core|Ram) running in .+"
)
_DISKS: Final = {
    "Storage PD Capacity": "pd-standard",
    "Balanced PD Capacity": "pd-balanced",
    "SSD backed PD Capacity": "pd-ssd",
    "Hyperdisk Balanced Capacity": "hyperdisk-balanced",
}
_ADDRESSES: Final = {
    "External IP Charge on a Standard VM": ADDRESS,
    "External IP Charge on a Spot Preemptible VM": ADDRESS + SPOT,
}
#: The part of a processor that small types are billed for.
_SHARED: Final = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}


class Sku(NamedTuple):
    """One price of the catalog."""

    description: str
    spot: bool
    unit: str
    usd: float


def fetch(
    options: GceOptions, zones: Mapping[str, Iterable[MachineType]]
) -> dict[str, dict[str, float]]:
    """Return USD an hour by zone and item, as far as the catalog tells. Raises `Uncertain`."""
    by_region: dict[str, list[Sku]] = {zone.rpartition("-")[0]: [] for zone in zones}
    for regions, sku in _catalog(options):
        for region in by_region:
            if region in regions or "global" in regions:
                by_region[region].append(sku)
    return {zone: items(by_region[zone.rpartition("-")[0]], types) for zone, types in zones.items()}


def items(skus: Iterable[Sku], types: Iterable[MachineType]) -> dict[str, float]:
    """Return USD an hour by item of one region. Of several prices of a thing the highest."""
    parts: dict[tuple[str, str, bool], float] = {}
    found: dict[str, float] = {}
    for sku in skus:
        if part := _PART.fullmatch(sku.description):
            key = part["family"].lower(), part["part"], sku.spot
            parts[key] = max(parts.get(key, 0.0), sku.usd)
        elif item := _ADDRESSES.get(sku.description):
            found[item] = max(found.get(item, 0.0), sku.usd)
        elif (kind := _DISKS.get(sku.description.partition(" in ")[0])) and "mo" in sku.unit:
            item = disk(kind)
            found[item] = max(found.get(item, 0.0), sku.usd / HOURS_OF_MONTH)
    for machine in types:
        family = machine.name.partition("-")[0]
        for spot in (False, True):
            core, ram = parts.get((family, "Core", spot)), parts.get((family, "Ram", spot))
            if core is not None and ram is not None:
                cores = _SHARED.get(machine.name, float(machine.cpus))
                found[machine.name + SPOT * spot] = cores * core + machine.memory / GiB * ram
    return found


def _catalog(options: GceOptions) -> Iterator[tuple[frozenset[str], Sku]]:
    """Yield what Compute Engine bills, each with its regions."""
    page = ""
    try:
        session = rest.session(options)
        for _ in range(_PAGES):
            answer = session.get(
                f"{rest.base(options, BILLING)}/v1/services/{_COMPUTE_ENGINE}/skus",
                params={"pageSize": "5000", "currencyCode": "USD", "pageToken": page},
                timeout=_TIMEOUT,
            )
            answer.raise_for_status()
            document = answer.json()
            for entry in document.get("skus", ()):
                if (sku := _sku(entry)) is not None:
                    yield frozenset(entry.get("serviceRegions", ())), sku
            page = document.get("nextPageToken", "")
            if not page:
                return
    except (auth_errors.GoogleAuthError, requests.RequestException, ValueError) as error:
        raise Uncertain(f"the catalog of prices: {error}") from error


def _sku(entry: Any) -> Sku | None:
    usage = entry.get("category", {}).get("usageType")
    infos = entry.get("pricingInfo") or [{}]
    expression = infos[-1].get("pricingExpression", {})
    rates = expression.get("tieredRates") or []
    if usage not in ("OnDemand", "Preemptible") or not rates:
        return None
    price = rates[-1].get("unitPrice", {})  # past what is free
    usd = int(price.get("units") or 0) + int(price.get("nanos") or 0) / 1e9
    description, unit = str(entry.get("description", "")), str(expression.get("usageUnit", ""))
    return Sku(description, usage == "Preemptible", unit, usd)
