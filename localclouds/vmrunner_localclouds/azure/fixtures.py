"""Fixtures that are there before anybody launches: locations, sizes, a network, an image."""

from __future__ import annotations

import ipaddress
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmrunner_localclouds.azure import resource_ids, timestamps
from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.azure.resource_ids import FIREWALL, GALLERY, IMAGE, NETWORK, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure


class Size(NamedTuple):
    """Capabilities of a VM size. `memory` in GiB; `local` is the disk of its host that it has,
    `cache` the room there for what is read and written, `nvme` what it has of its host's NVMe
    disks. `controllers`: of its disks, as its SKU tells them; "": it does not, and has SCSI."""

    cpus: int
    memory: float
    family: str
    local: int = 0  # GiB
    hibernates: bool = True
    architecture: str = "x64"
    cache: int = 0  # GiB
    controllers: str = ""
    generations: str = "V1,V2"
    nvme: int = 0  # GiB

    @property
    def has(self) -> frozenset[str]:
        """The controllers that its disks can have."""
        return frozenset(
            controller.strip() for controller in (self.controllers or "SCSI").split(",")
        )

    @property
    def placements(self) -> dict[str, int]:
        """Placement of an ephemeral disk on its host → its largest size, GiB."""
        room = {"CacheDisk": self.cache, "ResourceDisk": self.local, "NvmeDisk": self.nvme}
        return {place: most for place, most in room.items() if most}


#: Location → its zones.
LOCATIONS: Final = {"westeurope": "123", "northeurope": "123", "westcentralus": ""}
SIZES: Final = {
    "Standard_B2s": Size(2, 4, "standardBSFamily", 8, hibernates=False),
    "Standard_D2s_v3": Size(2, 8, "standardDSv3Family", 16, cache=50),
    "Standard_D2s_v5": Size(2, 8, "standardDSv5Family", controllers="SCSI"),
    "Standard_D4s_v5": Size(4, 16, "standardDSv5Family", controllers="SCSI"),
    "Standard_D8s_v5": Size(8, 32, "standardDSv5Family", controllers="SCSI"),
    "Standard_D2ds_v5": Size(2, 8, "standardDDSv5Family", 75),
    "Standard_D4ds_v5": Size(4, 16, "standardDDSv5Family", 150),
    "Standard_D2as_v5": Size(2, 8, "standardDASv5Family", controllers="SCSI"),
    "Standard_D4as_v5": Size(4, 16, "standardDASv5Family", controllers="SCSI"),
    "Standard_F4s_v2": Size(4, 8, "standardFSv2Family", 32, hibernates=False),
    "Standard_D2ps_v5": Size(2, 8, "standardDPSv5Family", architecture="Arm64"),
    "Standard_A2_v2": Size(2, 4, "standardAv2Family", hibernates=False, generations="V1"),
    "Standard_E2bs_v5": Size(2, 16, "standardEBSv5Family", controllers="SCSI, NVMe"),
    "Standard_D2s_v6": Size(2, 8, "StandardDsv6Family", controllers="NVMe", generations="V2"),
    "Standard_D2as_v7": Size(2, 8, "StandardDasv7Family", controllers="NVMe", generations="V2"),
    "Standard_D2ds_v6": Size(
        2, 8, "StandardDdsv6Family", controllers="NVMe", generations="V2", nvme=110
    ),
}
#: The use that a new subscription may make of a location.
QUOTAS: Final = {
    "cores": 100,
    "virtualMachines": 25_000,
    "lowPriorityCores": 100,
    **{size.family: 100 for size in SIZES.values()},
    "NetworkInterfaces": 65_536,
    "PublicIPAddresses": 1000,
    "StandardSkuPublicIpAddresses": 1000,
}
_EPOCH: Final = 1_500_000_000.0  # all of this is old


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureSite:
    """One resource group's furniture, by the ids that a request says of it."""

    subscription: str
    group: str
    location: str
    zones: tuple[str, ...]
    image: str  # a managed image
    version: str  # the same, in a gallery
    network: str
    subnet: str
    firewall: str


def resource(cloud: LocalAzure, group: str, kind: str, name: str, location: str) -> Json:
    """The fields that all resources have."""
    return {
        "id": resource_ids.resource_id(cloud.subscription, group, kind, name),
        "name": name,
        "type": kind,
        "location": location,
    }


def keep(cloud: LocalAzure, kind: str, shown: Json, created: float | None = None) -> Json:
    """Put a resource where it is found, and note when it was made."""
    cloud.shelf(kind)[key(shown["id"])] = shown
    cloud.created[key(shown["id"])] = cloud.now() if created is None else created
    return shown


def add_group(cloud: LocalAzure, name: str, location: str) -> Json:
    shown = {
        "id": f"/subscriptions/{cloud.subscription}/resourceGroups/{name}",
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": location,
        "tags": {},
        "properties": {"provisioningState": "Succeeded"},
    }
    cloud.groups[name.lower()] = shown
    return shown


def furnish(
    cloud: LocalAzure, *, group: str, location: str, ssh_from: str, disk_gb: int
) -> AzureSite:
    """A group with an image and a subnet, and SSH from `ssh_from` and nothing else into it."""
    if group.lower() not in cloud.groups:
        add_group(cloud, group, location)
    image = add_image(cloud, group, "vmrunner", location, disk_gb=disk_gb)
    version = add_version(cloud, group, "vmrunner", "vmrunner", "1.0.0", location, disk_gb=disk_gb)
    firewall = add_firewall(cloud, group, "vmrunner", location, ssh_from)
    network = add_network(cloud, group, "vmrunner", location, "10.8.0.0/16", firewall["id"])
    return AzureSite(
        subscription=cloud.subscription,
        group=group,
        location=location,
        zones=tuple(LOCATIONS[location]),
        image=image["id"],
        version=version["id"],
        network=network["id"],
        subnet=network["properties"]["subnets"][0]["id"],
        firewall=firewall["id"],
    )


def add_image(
    cloud: LocalAzure, group: str, name: str, location: str, *, disk_gb: int = 30, **more: Any
) -> Json:
    """A managed image of a Linux disk."""
    shown = resource(cloud, group, IMAGE, name, location) | {
        "properties": {
            "storageProfile": {
                "osDisk": {
                    "osType": "Linux",
                    "osState": "Generalized",
                    "diskSizeGB": disk_gb,
                    "caching": "ReadWrite",
                    "storageAccountType": "Standard_LRS",
                },
                "dataDisks": [],
                "zoneResilient": True,
            },
            "hyperVGeneration": "V2",
            "provisioningState": "Succeeded",
        },
        **more,
    }
    return keep(cloud, IMAGE, shown)


def add_version(
    cloud: LocalAzure,
    group: str,
    gallery: str,
    definition: str,
    name: str,
    location: str,
    *,
    disk_gb: int = 30,
    **more: Any,
) -> Json:
    """A version of an image in a gallery, with gallery and definition where they are missing."""
    kind = f"{GALLERY}/images/versions"
    above = resource(cloud, group, GALLERY, gallery, location)
    if key(above["id"]) not in cloud.shelf(GALLERY):
        keep(cloud, GALLERY, above | {"properties": {"provisioningState": "Succeeded"}})
    add_definition(cloud, above, definition, location)
    shown = {
        "id": f"{above['id']}/images/{definition}/versions/{name}",
        "name": name,
        "type": kind,
        "location": location,
        "properties": {
            "publishingProfile": {
                "targetRegions": [{"name": place} for place in LOCATIONS],
                "excludeFromLatest": False,
                "publishedDate": timestamps.written(cloud.now()),
            },
            "storageProfile": {"osDiskImage": {"sizeInGB": disk_gb}},
            "provisioningState": "Succeeded",
        },
        **more,
    }
    return keep(cloud, kind, shown)


def add_definition(cloud: LocalAzure, gallery: Json, name: str, location: str) -> Json:
    """A definition of images in a gallery, if there is none of that name: of the second generation,
    for disks with either controller."""
    shown: Json = {
        "id": f"{gallery['id']}/images/{name}",
        "name": name,
        "type": f"{GALLERY}/images",
        "location": location,
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": "V2",
            "architecture": "x64",
            "features": [{"name": "DiskControllerTypes", "value": "SCSI, NVMe"}],
            "identifier": {"publisher": "vmrunner", "offer": "vmrunner", "sku": name},
            "provisioningState": "Succeeded",
        },
    }
    existing = cloud.shelf(f"{GALLERY}/images").get(key(shown["id"]))
    return existing or keep(cloud, f"{GALLERY}/images", shown)


def add_firewall(cloud: LocalAzure, group: str, name: str, location: str, ssh_from: str) -> Json:
    """SSH from there, and nothing from other VMs of the network."""
    shown = resource(cloud, group, FIREWALL, name, location)
    above = f"{shown['id']}/securityRules"
    shown["properties"] = {
        "securityRules": [
            _rule(above, "ssh", 100, "Allow", ssh_from, "22", protocol="Tcp"),
            _rule(above, "no-neighbours", 200, "Deny", "VirtualNetwork", "*"),
        ],
        "defaultSecurityRules": [
            _rule(above, "AllowVnetInBound", 65000, "Allow", "VirtualNetwork", "*"),
            _rule(above, "DenyAllInBound", 65500, "Deny", "*", "*"),
        ],
        "provisioningState": "Succeeded",
    }
    return keep(cloud, FIREWALL, shown, _EPOCH)


def _rule(
    above: str, name: str, priority: int, access: str, source: str, port: str, protocol: str = "*"
) -> Json:
    return {
        "id": f"{above}/{name}",
        "name": name,
        "properties": {
            "protocol": protocol,
            "sourcePortRange": "*",
            "destinationPortRange": port,
            "sourceAddressPrefix": source,
            "destinationAddressPrefix": "*",
            "access": access,
            "priority": priority,
            "direction": "Inbound",
            "provisioningState": "Succeeded",
        },
    }


def add_network(
    cloud: LocalAzure, group: str, name: str, location: str, cidr: str, firewall: str = ""
) -> Json:
    """A network with one subnet, `default`, which has the whole of it."""
    shown = resource(cloud, group, NETWORK, name, location)
    subnet: Json = {
        "id": f"{shown['id']}/subnets/default",
        "name": "default",
        "type": f"{NETWORK}/subnets",
        "properties": {
            "addressPrefix": cidr,
            "provisioningState": "Succeeded",
            "privateEndpointNetworkPolicies": "Disabled",
            **({"networkSecurityGroup": {"id": firewall}} if firewall else {}),
        },
    }
    shown["properties"] = {
        "addressSpace": {"addressPrefixes": [cidr]},
        "subnets": [subnet],
        "virtualNetworkPeerings": [],
        "resourceGuid": str(uuid.uuid4()),
        "provisioningState": "Succeeded",
    }
    return keep(cloud, NETWORK, shown, _EPOCH)


def nth(cidr: str, number: int) -> str:
    """The n-th host of a network, round and round; the first four are the service's."""
    network = ipaddress.ip_network(cidr)
    return str(network[4 + number % (network.num_addresses - 6)])
