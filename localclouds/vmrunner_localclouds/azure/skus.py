"""Sizes as a list of SKUs tells of them: where they are, what they can, and what forbids them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.azure import fixtures
from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.azure.fixtures import Size

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure


def of(cloud: LocalAzure, location: str) -> list[Json]:
    return [_sku(cloud, location, name, size) for name, size in fixtures.SIZES.items()]


def _sku(cloud: LocalAzure, location: str, name: str, size: Size) -> Json:
    zones = list(fixtures.LOCATIONS[location])
    forbidden = (
        [
            {
                "type": "Location",
                "values": [location],
                "restrictionInfo": {"locations": [location]},
                "reasonCode": "NotAvailableForSubscription",
            }
        ]
        if (location, name) in cloud.restricted
        else []
    )
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "size": name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": zones, "zoneDetails": []}],
        "capabilities": [
            {"name": key, "value": value}
            for key, value in (
                ("MaxResourceVolumeMB", str(size.local * 1024)),
                *((("CachedDiskBytes", str(size.cache << 30)),) if size.cache else ()),
                ("vCPUs", str(size.cpus)),
                ("HyperVGenerations", size.generations),
                *((("DiskControllerTypes", size.controllers),) if size.controllers else ()),
                *((("NvmeDiskSizeInMiB", str(size.nvme << 10)),) if size.nvme else ()),
                *(
                    (("SupportedEphemeralOSDiskPlacements", ",".join(size.placements)),)
                    if size.nvme
                    else ()
                ),
                ("MemoryGB", f"{size.memory:g}"),
                ("CpuArchitectureType", size.architecture),
                ("LowPriorityCapable", "True"),
                ("EphemeralOSDiskSupported", str(bool(size.placements))),
                ("HibernationSupported", str(size.hibernates)),
                ("PremiumIO", "True"),
            )
        ],
        "restrictions": forbidden,
    }
