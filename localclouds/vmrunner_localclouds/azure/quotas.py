"""Quotas of a subscription in a location, and their use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import fixtures
from vmrunner_localclouds.azure.api_error import Json, not_allowed
from vmrunner_localclouds.azure.resource_ids import ADDRESS, NIC

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

NETWORK: Final = ("NetworkInterfaces", "PublicIPAddresses", "StandardSkuPublicIpAddresses")
_WORDS: Final = {
    "cores": "Total Regional vCPUs",
    "virtualMachines": "Virtual Machines",
    "lowPriorityCores": "Total Regional Low-priority vCPUs",
    "NetworkInterfaces": "Network Interfaces",
    "PublicIPAddresses": "Public IP Addresses",
    "StandardSkuPublicIpAddresses": "Public IPv4 Addresses - Standard",
}

_CORES: Final = {"cores": "Total Regional Cores", "lowPriorityCores": "LowPriorityCores"}


def check(cloud: LocalAzure, location: str, size: str, *, spot: bool) -> None:
    """Raises `ArmRefusal` when a new VM does not fit."""
    limits = cloud.quotas[location]
    if not limits:
        return  # and a fleet of 10,000 is not counted at every create
    used = usage(cloud, location)
    for metric, need in _needs(size, spot=spot).items():
        limit = limits.get(metric)
        have = used.get(metric, 0)
        if limit is not None and have + need > limit:
            what = _CORES.get(metric, f"{metric} Cores")
            raise not_allowed(
                f"Operation could not be completed as it results in exceeding approved {what} "
                "quota. Additional details - Deployment Model: Resource Manager, "
                f"Location: {location}, Current Limit: {limit}, Current Usage: {have}, Additional "
                f"Required: {need}, (Minimum) New Limit Required: {have + need}. Setup Alerts when "
                "Quota reaches threshold. Learn more at https://aka.ms/quotamonitoringalerting ."
            )


def shown(cloud: LocalAzure, location: str, *, network: bool) -> list[Json]:
    """The quotas as Microsoft.Compute, or Microsoft.Network, shows them."""
    used = usage(cloud, location)
    return [
        {
            "unit": "Count",
            "currentValue": used.get(metric, 0),
            "limit": limit,
            "name": {"value": metric, "localizedValue": _word(metric)},
            **({"id": f"/subscriptions/{cloud.subscription}/{metric}"} if network else {}),
        }
        for metric, limit in cloud.quotas[location].items()
        if (metric in NETWORK) == network
    ]


def usage(cloud: LocalAzure, location: str) -> dict[str, int]:
    """Metric → what is used in a location. What is deallocated uses no cores."""
    used: dict[str, int] = {}

    def add(metric: str, much: int) -> None:
        used[metric] = used.get(metric, 0) + much

    for machine in cloud.living.values():
        if machine.location == location and not machine.gone:
            add("virtualMachines", 1)
            if machine.billed:
                needs = _needs(machine.size, spot=machine.spot)
                del needs["virtualMachines"]
                for metric, much in needs.items():
                    add(metric, much)
    for kind, metrics in ((NIC, NETWORK[:1]), (ADDRESS, NETWORK[1:])):
        for resource in cloud.shelf(kind).values():
            if resource["location"] == location:
                for metric in metrics:
                    add(metric, 1)
    return used


def _needs(size: str, *, spot: bool) -> dict[str, int]:
    spec = fixtures.SIZES[size]
    if spot:
        return {"lowPriorityCores": spec.cpus, "virtualMachines": 1}
    return {"cores": spec.cpus, spec.family: spec.cpus, "virtualMachines": 1}


def _word(metric: str) -> str:
    return _WORDS.get(metric, f"{metric} vCPUs")
