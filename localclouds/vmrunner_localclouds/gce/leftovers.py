"""Leftovers: resources that no VM of this cloud made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vmrunner_localclouds.gce import fixtures, links
from vmrunner_localclouds.gce.discovery import Json

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce


def add_disk(
    cloud: LocalGce, zone: str, name: str, size_gb: int, more: Mapping[str, object]
) -> Json:
    zone_path = f"projects/{cloud.project}/zones/{zone}"
    shown = fixtures.resource(cloud, "disk", f"zones/{zone}/disks", name, cloud.now()) | {
        "zone": links.link(zone_path),
        "sizeGb": str(size_gb),
        "status": "READY",
        "type": links.link(f"{zone_path}/diskTypes/pd-standard"),
        "labelFingerprint": fixtures.fingerprint(),
        "physicalBlockSizeBytes": "4096",
        **more,
    }
    cloud.shelf("disks", f"zones/{zone}")[name] = shown
    return shown


def add_address(cloud: LocalGce, region: str, name: str, more: Mapping[str, object]) -> Json:
    where = f"regions/{region}" if region else "global"
    shown = fixtures.resource(cloud, "address", f"{where}/addresses", name, cloud.now()) | {
        "address": cloud.address("198.18.0.0/15"),
        "addressType": "EXTERNAL",
        "description": "",
        "networkTier": "PREMIUM",
        **({"region": links.link(f"projects/{cloud.project}/{where}")} if region else {}),
        "status": "RESERVED",
        "labelFingerprint": fixtures.fingerprint(),
        **more,
    }
    cloud.shelf("addresses", where)[name] = shown
    return shown


def add_snapshot(cloud: LocalGce, name: str, disk: str, more: Mapping[str, object]) -> Json:
    shown = fixtures.resource(cloud, "snapshot", "global/snapshots", name, cloud.now()) | {
        "status": "READY",
        "diskSizeGb": "10",
        "storageBytes": "1048576",
        "storageBytesStatus": "UP_TO_DATE",
        "labelFingerprint": fixtures.fingerprint(),
        **({"sourceDisk": disk, "sourceDiskId": str(fixtures.number())} if disk else {}),
        **more,
    }
    cloud.shelf("snapshots", "global")[name] = shown
    return shown
