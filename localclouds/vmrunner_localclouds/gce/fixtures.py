"""Fixtures that are there before anybody launches: zones, machine types, networks, an image."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import links, timestamps
from vmrunner_localclouds.gce.discovery import Json

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

#: Region → its zones and the range of its default subnetwork.
REGIONS: Final = {
    "europe-west1": ("bcd", "10.132.0.0/20"),
    "us-central1": ("abcf", "10.128.0.0/20"),
}
#: Name → CPUs, MiB.
MACHINE_TYPES: Final = {
    "e2-medium": (2, 4096),
    "e2-standard-2": (2, 8192),
    "e2-standard-4": (4, 16384),
    "e2-standard-8": (8, 32768),
    "n2-standard-2": (2, 8192),
    "n2-standard-4": (4, 16384),
    "n2d-standard-2": (2, 8192),
    "c3-standard-4": (4, 16384),
    "n4-standard-2": (2, 8192),
}
#: What a new project may have in a region, and everywhere.
QUOTAS: Final = {
    "CPUS": 72.0,
    "DISKS_TOTAL_GB": 40960.0,
    "IN_USE_ADDRESSES": 69.0,
    "INSTANCES": 720.0,
    "PREEMPTIBLE_CPUS": 0.0,
    "SSD_TOTAL_GB": 10240.0,
    "STATIC_ADDRESSES": 21.0,
}
GLOBAL_QUOTAS: Final = {
    "CPUS_ALL_REGIONS": 72.0,
    "NETWORKS": 15.0,
    "SNAPSHOTS": 5000.0,
    "IMAGES": 2000.0,
}
DISK_TYPES: Final = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
_EPOCH: Final = 1_500_000_000.0  # all of this is old


@dataclass(frozen=True, kw_only=True, slots=True)
class GceSite:
    """One project's furniture, by what a request says of it."""

    project: str
    region: str
    zones: tuple[str, ...]
    image: str  # `projects/p/global/images/i`
    family: str  # `projects/p/global/images/family/f`
    network: str
    subnetwork: str  # in `region`
    service_account: str


def number() -> int:
    """A new resource's id."""
    return secrets.randbelow(9 * 10**18) + 10**17


def fingerprint() -> str:
    """A new fingerprint, for a resource that changed."""
    return base64.b64encode(secrets.token_bytes(8)).decode()


def resource(cloud: LocalGce, kind: str, where: str, name: str, created: float) -> Json:
    """The fields that all resources have. `where`: `zones/z/disks`, `zones`, …"""
    return {
        "kind": f"compute#{kind}",
        "id": str(number()),
        "creationTimestamp": timestamps.written(created),
        "name": name,
        "selfLink": links.link(f"projects/{cloud.project}/{where}/{name}"),
    }


def build(cloud: LocalGce) -> None:
    """Fill a new project."""
    cloud.quotas[""] = dict(GLOBAL_QUOTAS)
    add_network(cloud, "default", automatic=True)
    for region in REGIONS:
        _build_region(cloud, region)
    inner = [{"IPProtocol": protocol, "ports": ["0-65535"]} for protocol in ("tcp", "udp")]
    add_firewall(
        cloud, "default-allow-internal", "default", ["10.128.0.0/9"], [*inner, _port("icmp")]
    )
    add_firewall(cloud, "default-allow-ssh", "default", ["0.0.0.0/0"], [_port("tcp", "22")])


def furnish(cloud: LocalGce, *, family: str, ssh_from: str, disk_gb: int) -> GceSite:
    """An image, and a network with SSH from `ssh_from` and nothing else."""
    image = add_image(cloud, cloud.project, f"{family}-1", family=family, disk_gb=disk_gb)
    add_network(cloud, "vmrunner", automatic=False)
    for index, region in enumerate(REGIONS):
        add_subnetwork(cloud, region, "vmrunner", "vmrunner", f"10.{8 + index}.0.0/20")
    add_firewall(cloud, "vmrunner-allow-ssh", "vmrunner", [ssh_from], [_port("tcp", "22")])
    region = next(iter(REGIONS))
    return GceSite(
        project=cloud.project,
        region=region,
        zones=tuple(f"{region}-{letter}" for letter in REGIONS[region][0]),
        image=links.relative(image["selfLink"], cloud.project),
        family=f"projects/{cloud.project}/global/images/family/{family}",
        network="global/networks/vmrunner",
        subnetwork=f"regions/{region}/subnetworks/vmrunner",
        service_account=f"{cloud.number}-compute@developer.gserviceaccount.com",
    )


def add_image(
    cloud: LocalGce,
    project: str,
    name: str,
    *,
    family: str = "",
    disk_gb: int = 10,
    **more: object,
) -> Json:
    shown = resource(cloud, "image", "global/images", name, cloud.now()) | {
        "sourceType": "RAW",
        "rawDisk": {"source": "", "containerType": "TAR"},
        "status": "READY",
        "archiveSizeBytes": str(disk_gb * 2**27),
        "diskSizeGb": str(disk_gb),
        "architecture": "X86_64",
        "labelFingerprint": fingerprint(),
        "storageLocations": ["eu"],
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}, {"type": "VIRTIO_SCSI_MULTIQUEUE"}],
        **({"family": family} if family else {}),
        **more,
    }
    shown["selfLink"] = links.link(f"projects/{project}/global/images/{name}")
    cloud.images(project)[name] = shown
    return shown


def add_network(cloud: LocalGce, name: str, *, automatic: bool) -> Json:
    shown = resource(cloud, "network", "global/networks", name, _EPOCH) | {
        "autoCreateSubnetworks": automatic,
        "routingConfig": {"routingMode": "REGIONAL"},
        "subnetworks": [],
        "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
    }
    cloud.shelf("networks", "global")[name] = shown
    return shown


def add_subnetwork(cloud: LocalGce, region: str, network: str, name: str, cidr: str) -> Json:
    parent = cloud.shelf("networks", "global")[network]
    where = f"regions/{region}/subnetworks"
    shown = resource(cloud, "subnetwork", where, name, _EPOCH) | {
        "network": parent["selfLink"],
        "ipCidrRange": cidr,
        "gatewayAddress": cidr.partition("/")[0].removesuffix("0") + "1",
        "region": links.link(f"projects/{cloud.project}/regions/{region}"),
        "privateIpGoogleAccess": False,
        "fingerprint": fingerprint(),
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
    }
    cloud.shelf("subnetworks", f"regions/{region}")[name] = shown
    parent["subnetworks"].append(shown["selfLink"])
    return shown


def add_firewall(
    cloud: LocalGce, name: str, network: str, sources: list[str], allowed: list[Json]
) -> Json:
    shown = resource(cloud, "firewall", "global/firewalls", name, _EPOCH) | {
        "network": cloud.shelf("networks", "global")[network]["selfLink"],
        "priority": 1000,
        "sourceRanges": sources,
        "allowed": allowed,
        "direction": "INGRESS",
        "disabled": False,
        "logConfig": {"enable": False},
    }
    cloud.shelf("firewalls", "global")[name] = shown
    return shown


def _build_region(cloud: LocalGce, region: str) -> None:
    letters, cidr = REGIONS[region]
    cloud.quotas[region] = dict(QUOTAS)
    zones_path = f"projects/{cloud.project}/zones"
    cloud.shelf("regions", "global")[region] = resource(
        cloud, "region", "regions", region, _EPOCH
    ) | {
        "description": region,
        "status": "UP",
        "zones": [links.link(f"{zones_path}/{region}-{letter}") for letter in letters],
    }
    add_subnetwork(cloud, region, "default", "default", cidr)
    for letter in letters:
        zone = f"{region}-{letter}"
        cloud.shelf("zones", "global")[zone] = resource(cloud, "zone", "zones", zone, _EPOCH) | {
            "description": zone,
            "status": "UP",
            "region": links.link(f"projects/{cloud.project}/regions/{region}"),
            "availableCpuPlatforms": ["AMD Milan", "Intel Ice Lake"],
        }
        for name, (cpus, memory) in MACHINE_TYPES.items():
            add_machine_type(cloud, zone, name, cpus, memory)


def add_machine_type(cloud: LocalGce, zone: str, name: str, cpus: int, memory: int) -> Json:
    """`memory` in MiB."""
    where = f"zones/{zone}/machineTypes"
    shown = resource(cloud, "machineType", where, name, _EPOCH) | {
        "description": f"{cpus} vCPUs, {memory // 1024} GB RAM",
        "guestCpus": cpus,
        "memoryMb": memory,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "zone": zone,
        "isSharedCpu": name == "e2-medium",
        "architecture": "X86_64",
    }
    cloud.shelf("machineTypes", f"zones/{zone}")[name] = shown
    return shown


def _port(protocol: str, *ports: str) -> Json:
    return {"IPProtocol": protocol, **({"ports": list(ports)} if ports else {})}
