"""Network interfaces of a new VM, and its addresses."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import fixtures, links
from vmrunner_localclouds.gce.api_error import invalid
from vmrunner_localclouds.gce.discovery import Json

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce


#: Where external addresses come from.
_EXTERNAL: Final = "198.18.0.0/15"


def interfaces(cloud: LocalGce, zone: str, configs: list[Json]) -> list[Json]:
    """The interfaces as an answer has them. Raises `GceRefusal`."""
    if not configs:
        raise invalid("resource.networkInterfaces", "", "At least one is required.")
    return [_interface(cloud, zone, config, index) for index, config in enumerate(configs)]


def _interface(cloud: LocalGce, zone: str, config: Json, index: int) -> Json:
    path = f"resource.networkInterfaces[{index}]"
    region = zone.rpartition("-")[0]
    subnetwork = _subnetwork(cloud, region, config, path)
    own = cloud.bodies.address() if cloud.bodies and index == 0 else None  # where its VM is reached
    shown: Json = {
        "kind": "compute#networkInterface",
        "name": f"nic{index}",
        "network": subnetwork["network"],
        "subnetwork": subnetwork["selfLink"],
        "networkIP": own or config.get("networkIP") or cloud.address(subnetwork["ipCidrRange"]),
        "fingerprint": fixtures.fingerprint(),
        "stackType": "IPV4_ONLY",
        **({"nicType": config["nicType"]} if "nicType" in config else {}),
    }
    if configs := config.get("accessConfigs"):
        if len(configs) > 1:
            raise invalid(f"{path}.accessConfigs", "", "At most one access config is supported.")
        shown["accessConfigs"] = [_access(cloud, region, configs[0], path, own)]
    return shown


def _access(cloud: LocalGce, region: str, config: Json, path: str, own: str | None) -> Json:
    wanted = config.get("natIP")
    if wanted is not None:
        addresses = cloud.shelf("addresses", f"regions/{region}").values()
        address = next((a for a in addresses if a["address"] == wanted), None)
        if address is None or address["status"] != "RESERVED":
            text = "The specified external IP address was not found, or is in use."
            raise invalid(f"{path}.accessConfigs[0].natIP", wanted, text)
    return {
        "kind": "compute#accessConfig",
        "type": config.get("type", "ONE_TO_ONE_NAT"),
        "name": config.get("name", "external-nat"),
        "natIP": wanted or own or cloud.address(_EXTERNAL),
        "networkTier": config.get("networkTier", "PREMIUM"),
    }


def _subnetwork(cloud: LocalGce, region: str, config: Json, path: str) -> Json:
    network = _network(cloud, config, path)
    shelf = cloud.shelf("subnetworks", f"regions/{region}")
    if "subnetwork" in config:
        relative = links.relative(config["subnetwork"], cloud.project)
        found = shelf.get(links.last(relative))
        if found is None or links.relative(found["selfLink"], cloud.project) != relative:
            text = "The referenced subnetwork resource cannot be found."
            raise invalid(f"{path}.subnetwork", config["subnetwork"], text)
        if network is not None and found["network"] != network["selfLink"]:
            text = "The subnetwork is not in the network."
            raise invalid(f"{path}.subnetwork", config["subnetwork"], text)
        return found
    if network is None:
        network = cloud.shelf("networks", "global")["default"]
    if not network["autoCreateSubnetworks"]:
        text = "Subnetwork should be specified for custom subnetmode network"
        raise invalid(f"{path}.network", config.get("network", ""), text)
    return next(s for s in shelf.values() if s["network"] == network["selfLink"])


def hold(cloud: LocalGce, zone: str, shown: Json, *, freed: bool = False) -> None:
    """Mark the reserved addresses of a VM as in use, or `freed`."""
    for nic in shown["networkInterfaces"]:
        for config in nic.get("accessConfigs", []):
            region = zone.rpartition("-")[0]
            for address in cloud.shelf("addresses", f"regions/{region}").values():
                if address["address"] == config.get("natIP"):
                    address["status"] = "RESERVED" if freed else "IN_USE"
                    address["users"] = [] if freed else [shown["selfLink"]]


def release(cloud: LocalGce, zone: str, shown: Json) -> None:
    """Take from a VM its external addresses that are not reserved."""
    region = zone.rpartition("-")[0]
    kept = {
        address["address"] for address in cloud.shelf("addresses", f"regions/{region}").values()
    }
    for nic in shown["networkInterfaces"]:
        for config in nic.get("accessConfigs", []):
            if config["natIP"] not in kept:
                del config["natIP"]


def lend(cloud: LocalGce, shown: Json) -> None:
    """Give a VM that goes on external addresses again."""
    for index, nic in enumerate(shown["networkInterfaces"]):
        own = nic["networkIP"] if cloud.bodies and index == 0 else None
        for config in nic.get("accessConfigs", []):
            config.setdefault("natIP", own or cloud.address(_EXTERNAL))


def _network(cloud: LocalGce, config: Json, path: str) -> Json | None:
    if "network" not in config:
        return None
    relative = links.relative(config["network"], cloud.project)
    found = cloud.shelf("networks", "global").get(links.last(relative))
    if found is None or links.relative(found["selfLink"], cloud.project) != relative:
        text = "The referenced network resource cannot be found."
        raise invalid(f"{path}.network", config["network"], text)
    return found


def nth(cidr: str, number: int) -> str:
    """The n-th host of a network, round and round."""
    network = ipaddress.ip_network(cidr)
    return str(network[2 + number % (network.num_addresses - 4)])
