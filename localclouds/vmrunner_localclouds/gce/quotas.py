"""Quotas of a project, and their use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.links import last

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce


def check(
    cloud: LocalGce, zone: str, shown: Json, kind: Json, nics: list[Json], disks: list[Json]
) -> BrokenOperation | None:
    """Raises `GceRefusal` when a new VM does not fit, or says how its operation ends."""
    region = zone.rpartition("-")[0]
    limits = cloud.quotas.get(region)
    if not limits:
        return None  # and a fleet of 10,000 is not counted at every insert
    spot = shown["scheduling"]["provisioningModel"] == "SPOT"
    cpus = "PREEMPTIBLE_CPUS" if spot and limits.get("PREEMPTIBLE_CPUS") else "CPUS"
    needs = {cpus: float(kind["guestCpus"]), "INSTANCES": 1.0}
    needs["IN_USE_ADDRESSES"] = float(sum("accessConfigs" in nic for nic in nics))
    for disk in disks:
        metric = _disk_metric(disk)
        needs[metric] = needs.get(metric, 0.0) + float(disk["sizeGb"])
    used = usage(cloud, region)
    for metric, need in needs.items():
        limit = limits.get(metric)
        if limit is not None and used.get(metric, 0.0) + need > limit:
            text = f"Quota '{metric}' exceeded.  Limit: {limit} in region {region}."
            if cloud.quota_in_operation:
                return BrokenOperation("QUOTA_EXCEEDED", text, 403)
            raise GceRefusal(403, "quotaExceeded", text)
    return None


def shown(cloud: LocalGce, region: str) -> list[Json]:
    """The quotas as a region (or, for "", the project) shows them."""
    used = usage(cloud, region)
    return [
        {"metric": metric, "limit": limit, "usage": used.get(metric, 0.0)}
        for metric, limit in cloud.quotas[region].items()
    ]


def usage(cloud: LocalGce, region: str) -> dict[str, float]:
    """Metric → what is used in a region, or with "" everywhere."""
    used: dict[str, float] = {}

    def add(metric: str, much: float) -> None:
        used[metric] = used.get(metric, 0.0) + much

    for scope, shelf in cloud.shelves("instances").items():
        if not _within(scope, region):
            continue
        for instance in shelf.values():
            kinds = cloud.shelf("machineTypes", scope)
            spot = instance["scheduling"]["provisioningModel"] == "SPOT"
            metric = "PREEMPTIBLE_CPUS" if spot and _split(cloud, region) else "CPUS"
            cpus = kinds[last(instance["machineType"])]["guestCpus"]
            add("INSTANCES", 1)
            if instance["status"] not in ("TERMINATED", "SUSPENDED"):
                add(metric, cpus)
                add("CPUS_ALL_REGIONS", cpus)
                for nic in instance["networkInterfaces"]:
                    add("IN_USE_ADDRESSES", float("accessConfigs" in nic))
    for scope, shelf in cloud.shelves("disks").items():
        if _within(scope, region):
            for disk in shelf.values():
                add(_disk_metric(disk), float(disk["sizeGb"]))
    return used


def _split(cloud: LocalGce, region: str) -> bool:
    """True if spot VMs have a quota of their own."""
    return bool(cloud.quotas.get(region, {}).get("PREEMPTIBLE_CPUS"))


def _within(scope: str, region: str) -> bool:
    return not region or scope.partition("/")[2].rpartition("-")[0] == region


def _disk_metric(disk: Json) -> str:
    return "DISKS_TOTAL_GB" if last(disk["type"]) == "pd-standard" else "SSD_TOTAL_GB"
