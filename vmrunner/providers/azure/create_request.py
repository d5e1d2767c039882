"""One PUT: the VM and all that it consists of, ours by their tags, and dying with it."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from typing import Any, Final

from vmrunner.errors import BadOrder
from vmrunner.model import Market, Order, tags_of
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.cloud_options import GiB

USER_DATA: Final = 64 * 1024  # bytes, once they are written in base64
#: The version of Microsoft.Network by which it makes an interface and an address.
NETWORK: Final = "2022-11-01"
#: Whom Azure wants to be told of; cloud-init makes root's account alone.
USER: Final = "vmrunner"
_FORBIDDEN: Final = re.compile(r"[<>%&\\?/\x00-\x1f]")
_DIES: Final = {"deleteOption": "Delete"}


def machine(
    order: Order, options: AzureOptions, *, local: str, controller: str = ""
) -> dict[str, Any]:
    """The `VirtualMachine` to put: the same for the same order. `local`: where on its host its disk
    is; "": it is a managed one. `controller`: of its disks; "": Azure's choice. Raises
    `BadOrder`."""
    offer, tags = order.offer, tags_for(order, options)
    zone = offer.place.partition("-")[2]
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": offer.machine_type},
        "storageProfile": {
            "imageReference": image_reference(offer.image),
            "osDisk": _disk(order, options, local),
        },
        "osProfile": {
            "computerName": order.instance,
            "adminUsername": USER,
            "customData": _user_data(order.user_data),
            # No agent: rights in Azure alone run nothing in the guest, and it asks
            # Azure for nothing.
            "allowExtensionOperations": False,
            "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "provisionVMAgent": False,
                "ssh": {"publicKeys": [_placeholder_key(order.instance)]},
            },
        },
        "networkProfile": {
            "networkApiVersion": NETWORK,
            "networkInterfaceConfigurations": [_interface(order, options, tags)],
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    if controller:
        properties["storageProfile"]["diskControllerType"] = controller
    if offer.market is Market.SPOT:
        # Taken back, it leaves nothing; it never costs more than on demand.
        properties |= {
            "priority": "Spot",
            "evictionPolicy": "Delete",
            "billingProfile": {"maxPrice": -1},
        }
    made: dict[str, Any] = {"location": options.location, "tags": tags, "properties": properties}
    return made | ({"zones": [zone]} if zone else {})


def tags_for(order: Order, options: AzureOptions) -> dict[str, str]:
    """Tags of everything created for this order; names as Azure takes them."""
    tags = {**options.tags, **tags_of(order)}
    return {_FORBIDDEN.sub("_", key)[:512]: value[:256] for key, value in tags.items()}


def image_reference(image: str) -> dict[str, str]:
    """Fields by which a request names an image."""
    if not image.startswith("/"):
        publisher, offer, sku, version = image.split(":")
        return {"publisher": publisher, "offer": offer, "sku": sku, "version": version}
    shared = {
        "/communitygalleries/": "communityGalleryImageId",
        "/sharedgalleries/": "sharedGalleryImageId",
    }
    key = next((key for start, key in shared.items() if image.lower().startswith(start)), "id")
    return {key: image}


def _disk(order: Order, options: AzureOptions, local: str) -> dict[str, Any]:
    disk: dict[str, Any] = {
        "name": order.instance,
        "createOption": "FromImage",
        "caching": "ReadOnly" if local else "ReadWrite",
        "managedDisk": {"storageAccountType": "Standard_LRS" if local else options.disk_type},
        **_DIES,
    }
    if local:
        disk["diffDiskSettings"] = {"option": "Local", "placement": local}
    if order.offer.disk:
        disk["diskSizeGB"] = math.ceil(order.offer.disk / GiB)
    return disk


def _interface(order: Order, options: AzureOptions, tags: dict[str, str]) -> dict[str, Any]:
    address: dict[str, Any] = {"primary": True, "subnet": {"id": options.subnet_id}}
    if options.address == "public":
        address["publicIPAddressConfiguration"] = {
            "name": order.instance,
            "sku": {"name": "Standard", "tier": "Regional"},
            "tags": tags,
            "properties": {**_DIES, "publicIPAllocationMethod": "Static"},
        }
    interface: dict[str, Any] = {
        **_DIES,
        "primary": True,
        "enableIPForwarding": False,
        "ipConfigurations": [{"name": order.instance, "properties": address}],
    }
    group = options.security_group_id(order.network)
    if group is not None:
        interface["networkSecurityGroup"] = {"id": group}
    return {"name": order.instance, "tags": tags, "properties": interface}


def _user_data(data: bytes) -> str:
    coded = base64.b64encode(data).decode()
    if len(coded) > USER_DATA:
        raise BadOrder(f"user-data: {len(coded)} bytes in base64, Azure takes {USER_DATA}")
    return coded


def _placeholder_key(instance: str) -> dict[str, str]:
    """Public key, which Azure demands. It is a hash and has no private half: the key that SSH goes
    by is in the user-data."""
    name = b"ssh-ed25519"
    point = hashlib.sha256(f"vmrunner, nobody: {instance}".encode()).digest()
    blob = b"".join(len(word).to_bytes(4, "big") + word for word in (name, point))
    key = f"{name.decode()} {base64.b64encode(blob).decode()}"
    return {"path": f"/home/{USER}/.ssh/authorized_keys", "keyData": key}
