"""Interfaces and public addresses of a new VM: made with it, or before."""

from __future__ import annotations

import ipaddress
import secrets
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.azure import attributes, fixtures, resource_ids
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid, missing
from vmrunner_localclouds.azure.limits import RESERVED_ADDRESSES
from vmrunner_localclouds.azure.resource_ids import ADDRESS, FIREWALL, NETWORK, NIC, key, last

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_COUNTED: Final = 1000  # addresses of a subnet
#: Where public addresses come from.
_PUBLIC: Final = "198.18.0.0/15"


@dataclass(slots=True)
class PlannedInterfaces:
    """Resources that are made when the VM is, and the VM's references to them."""

    references: list[Json] = field(default_factory=list)
    made: list[Json] = field(default_factory=list)
    taken: list[Json] = field(default_factory=list)
    owner: str = ""

    def keep(self, cloud: LocalAzure) -> None:
        for resource in self.made:
            fixtures.keep(cloud, resource["type"], resource)
        for resource in self.taken:
            resource["properties"]["virtualMachine"] = {"id": self.owner}


def plan(cloud: LocalAzure, group: str, owner: Json, body: Json) -> PlannedInterfaces:
    """Raises `ArmRefusal`; nothing is made yet."""
    profile = (body.get("properties") or {}).get("networkProfile") or {}
    configs = profile.get("networkInterfaceConfigurations") or []
    given = profile.get("networkInterfaces") or []
    if not configs and not given:
        raise missing("networkProfile")
    if configs and given:
        text = "networkInterfaces and networkInterfaceConfigurations exclude each other."
        raise invalid("networkProfile", text)
    if configs and not profile.get("networkApiVersion"):
        raise missing("networkProfile.networkApiVersion")
    planned = PlannedInterfaces(owner=owner["id"])
    for index, config in enumerate(configs):
        _make(cloud, group, owner, body, config, planned, first=index == 0)
    for reference in given:
        _take(cloud, reference, owner, planned)
    return planned


def subnet(cloud: LocalAzure, identifier: str, referrer: str) -> Json:
    """A subnet by its id. Raises `ArmRefusal`."""
    network, _, _ = identifier.lower().partition("/subnets/")
    found = cloud.shelf(NETWORK).get(network)
    subnets: list[Json] = found["properties"]["subnets"] if found else []
    for candidate in subnets:
        if key(candidate["id"]) == key(identifier):
            return candidate
    raise unknown_reference(identifier, referrer)


def _check_room(cloud: LocalAzure, found: Json) -> None:
    """Raises `ArmRefusal` where a subnet has no address left. Large ones are not counted."""
    prefix = str(found["properties"]["addressPrefix"])
    most = ipaddress.ip_network(prefix).num_addresses - RESERVED_ADDRESSES
    if most > _COUNTED:
        return
    configs = (
        config["properties"]
        for nic in cloud.shelf(NIC).values()
        for config in nic["properties"]["ipConfigurations"]
    )
    used = sum(
        key((properties.get("subnet") or {}).get("id", "")) == key(found["id"])
        for properties in configs
    )
    if used >= most:
        text = f"Subnet {found['name']} with address prefix {prefix} does not have enough capacity "
        raise ArmRefusal(400, "SubnetIsFull", f"{text}for 1 IP addresses.")


def unknown_reference(identifier: str, referrer: str) -> ArmRefusal:
    text = f"Resource {identifier} referenced by resource {referrer} was not found. Please make "
    text += "sure that the referenced resource exists, and that both resources are in the same "
    return ArmRefusal(400, "InvalidResourceReference", f"{text}region.")


def _make(
    cloud: LocalAzure,
    group: str,
    owner: Json,
    body: Json,
    config: Json,
    planned: PlannedInterfaces,
    *,
    first: bool,
) -> None:
    name = f"{config['name']}-{secrets.token_hex(4)}"
    attributes.check_tags(config.get("tags"))
    properties = config.get("properties") or {}
    shown = fixtures.resource(cloud, group, NIC, name, owner["location"])
    shown |= {"tags": config.get("tags") or {}, "etag": f'W/"{uuid.uuid4()}"'}
    filter_of = (properties.get("networkSecurityGroup") or {}).get("id")
    if filter_of and key(filter_of) not in cloud.shelf(FIREWALL):
        raise unknown_reference(filter_of, shown["id"])
    own = cloud.bodies.address() if cloud.bodies and first else None  # where its VM is reached
    ips = [
        _ip(cloud, group, shown, body, ip_config, planned, own if index == 0 else None)
        for index, ip_config in enumerate(properties.get("ipConfigurations") or [])
    ]
    if not ips:
        raise missing("networkInterfaceConfigurations.properties.ipConfigurations")
    primary = bool(properties.get("primary", first))
    shown["properties"] = {
        "provisioningState": "Succeeded",
        "resourceGuid": str(uuid.uuid4()),
        "ipConfigurations": ips,
        "macAddress": "00-0D-3A-" + "-".join(secrets.token_hex(1).upper() for _ in range(3)),
        "enableAcceleratedNetworking": bool(properties.get("enableAcceleratedNetworking")),
        "primary": primary,
        "virtualMachine": {"id": owner["id"]},
        "nicType": "Standard",
        **({"networkSecurityGroup": {"id": filter_of}} if filter_of else {}),
    }
    planned.made.append(shown)
    option = properties.get("deleteOption", "Detach")
    planned.references.append(
        {"id": shown["id"], "properties": {"primary": primary, "deleteOption": option}}
    )


def _ip(
    cloud: LocalAzure,
    group: str,
    interface: Json,
    body: Json,
    config: Json,
    planned: PlannedInterfaces,
    own: str | None,
) -> Json:
    properties = config.get("properties") or {}
    within = (properties.get("subnet") or {}).get("id")
    if not within:
        raise missing("ipConfigurations.properties.subnet")
    found = subnet(cloud, within, interface["id"])
    _check_room(cloud, found)
    identifier = f"{interface['id']}/ipConfigurations/{config['name']}"
    shown: Json = {
        "id": identifier,
        "name": config["name"],
        "properties": {
            "provisioningState": "Succeeded",
            "privateIPAddress": own or cloud.address(found["properties"]["addressPrefix"]),
            "privateIPAllocationMethod": "Dynamic",
            "subnet": {"id": found["id"]},
            "primary": bool(properties.get("primary", True)),
            "privateIPAddressVersion": "IPv4",
        },
    }
    public = properties.get("publicIPAddressConfiguration")
    if public is not None:
        made = _public(cloud, group, interface, body, public, own)
        made["properties"]["ipConfiguration"] = {"id": identifier}
        shown["properties"]["publicIPAddress"] = {"id": made["id"]}
        planned.made.append(made)
    return shown


def _public(
    cloud: LocalAzure, group: str, interface: Json, body: Json, config: Json, own: str | None
) -> Json:
    attributes.check_tags(config.get("tags"))
    sku = config.get("sku") or {}
    check_sku(sku.get("name"), interface["location"])
    name = f"{config['name']}-{secrets.token_hex(4)}"
    shown = fixtures.resource(cloud, group, ADDRESS, name, interface["location"])
    settings = config.get("properties") or {}
    properties: dict[str, Any] = {
        "provisioningState": "Succeeded",
        "resourceGuid": str(uuid.uuid4()),
        "ipAddress": own or cloud.address(_PUBLIC),
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": "Static",
        "idleTimeoutInMinutes": settings.get("idleTimeoutInMinutes", 4),
        **({"deleteOption": settings["deleteOption"]} if "deleteOption" in settings else {}),
    }
    if settings.get("publicIPAllocationMethod") == "Dynamic":
        text = "Standard sku publicIp must have AllocationMethod set to Static."
        raise ArmRefusal(400, "PublicIPAddressAllocationMethodInvalid", text)
    zones = {"zones": body["zones"]} if body.get("zones") else {}
    return shown | {
        "tags": config.get("tags") or {},
        "etag": f'W/"{uuid.uuid4()}"',
        "sku": {"name": "Standard", "tier": "Regional"},
        "properties": properties,
        **zones,
    }


def check_sku(name: str | None, location: str) -> None:
    """Raises `ArmRefusal` for a Basic address, which is the default without a SKU."""
    if name != "Standard":
        text = "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription "
        raise ArmRefusal(
            400, "IPv4BasicSkuPublicIpCountLimitReached", f"{text}in this region ({location})."
        )


def _take(cloud: LocalAzure, reference: Json, owner: Json, planned: PlannedInterfaces) -> None:
    """Plan the use of an existing interface. Raises `ArmRefusal`."""
    identifier = reference.get("id", "")
    found = cloud.shelf(NIC).get(key(identifier))
    if found is None:
        raise unknown_reference(identifier, owner["id"])
    if found["properties"].get("virtualMachine"):
        text = f"Network Interface {last(identifier)} is used by existing resource."
        raise ArmRefusal(400, "NicInUse", text)
    properties = reference.get("properties") or {}
    planned.taken.append(found)
    planned.references.append(
        {
            "id": found["id"],
            "properties": {
                "primary": bool(properties.get("primary", True)),
                "deleteOption": properties.get("deleteOption", "Detach"),
            },
        }
    )


def new_interface(cloud: LocalAzure, shown: Json, body: Json) -> Json:
    """An interface made alone, by a PUT. Raises `ArmRefusal`."""
    properties = dict(body.get("properties") or {})
    configs = properties.get("ipConfigurations") or []
    if not configs:
        raise missing("ipConfigurations")
    made = []
    for config in configs:
        ip_properties = dict(config.get("properties") or {})
        within = (ip_properties.get("subnet") or {}).get("id", "")
        found = subnet(cloud, within, shown["id"])
        identifier = f"{shown['id']}/ipConfigurations/{config.get('name', 'ipconfig')}"
        address = (ip_properties.get("publicIPAddress") or {}).get("id")
        if address is not None:
            public = cloud.shelf(ADDRESS).get(key(address))
            if public is None:
                raise unknown_reference(address, shown["id"])
            public["properties"]["ipConfiguration"] = {"id": identifier}
        ip_properties |= {
            "provisioningState": "Succeeded",
            "privateIPAddress": cloud.address(found["properties"]["addressPrefix"]),
            "privateIPAllocationMethod": "Dynamic",
            "primary": True,
        }
        made.append(
            {"id": identifier, "name": resource_ids.last(identifier), "properties": ip_properties}
        )
    return properties | {
        "provisioningState": "Succeeded",
        "resourceGuid": str(uuid.uuid4()),
        "ipConfigurations": made,
        "primary": True,
        "nicType": "Standard",
    }


def new_address(cloud: LocalAzure, body: Json) -> Json:
    """A public address made alone, by a PUT. Raises `ArmRefusal`."""
    check_sku((body.get("sku") or {}).get("name"), body["location"])
    return dict(body.get("properties") or {}) | {
        "provisioningState": "Succeeded",
        "resourceGuid": str(uuid.uuid4()),
        "ipAddress": cloud.address(_PUBLIC),
        "publicIPAllocationMethod": "Static",
    }
