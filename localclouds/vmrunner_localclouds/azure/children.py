"""Parts of a VM that are resources of their own: interfaces, public addresses, disks. What is made
with it says if it dies with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.resource_ids import ADDRESS, DISK, NIC, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure
    from vmrunner_localclouds.azure.machines import AzureMachine


def follow(machine: AzureMachine) -> None:
    """Delete what goes with a VM, and free the rest. `keeps_children` are types that the service
    forgets."""
    cloud = machine.cloud
    for reference in interface_references(machine):
        _release(cloud, NIC, reference["id"], reference.get("properties") or {})
    for disk in disk_references(machine):
        _release(cloud, DISK, disk_id(disk), disk)


def abandon(machine: AzureMachine, broken: FailedLater) -> None:
    """Delete what a failed create does not leave. An interface of it is reserved for a while."""
    cloud = machine.cloud
    until = cloud.now() + cloud.reserved_seconds
    for reference in interface_references(machine):
        found = cloud.shelf(NIC).get(key(reference["id"]))
        if found is None:
            continue
        for address in addresses_of(cloud, found):
            if ADDRESS not in broken.remains:
                cloud.shelf(ADDRESS).pop(key(address["id"]), None)
        if NIC not in broken.remains:
            cloud.shelf(NIC).pop(key(found["id"]), None)
        elif not broken.runs:
            cloud.reserved[key(found["id"])] = until
            if _vm_is_gone(broken):
                found["properties"].pop("virtualMachine", None)
    for disk in disk_references(machine):
        made = cloud.shelf(DISK).get(key(disk_id(disk)))
        if made is not None and DISK not in broken.remains:
            del cloud.shelf(DISK)[key(made["id"])]
            disk.pop("managedDisk")
        elif made is not None and _vm_is_gone(broken):
            _detach(made)


def let_go(machine: AzureMachine) -> None:
    """Mark a VM's disks as reserved: it gives back its room, and they stay."""
    for disk in disks_of(machine):
        disk["properties"]["diskState"] = "Reserved"


def take_again(machine: AzureMachine) -> None:
    for disk in disks_of(machine):
        disk["properties"]["diskState"] = "Attached"


def interface_references(machine: AzureMachine) -> list[Json]:
    found: list[Json] = machine.shown["properties"]["networkProfile"]["networkInterfaces"]
    return found


def disk_references(machine: AzureMachine) -> list[Json]:
    storage = machine.shown["properties"]["storageProfile"]
    return [storage["osDisk"], *storage.get("dataDisks", [])]


def disk_id(reference: Json) -> str:
    """The id of a VM's disk; empty: it is its host's, or was never made."""
    return str(reference.get("managedDisk", {}).get("id", ""))


def disks_of(machine: AzureMachine) -> Iterator[Json]:
    for disk in disk_references(machine):
        found = machine.cloud.shelf(DISK).get(key(disk_id(disk)))
        if found is not None:
            yield found


def interfaces_of(machine: AzureMachine) -> Iterator[Json]:
    for reference in interface_references(machine):
        found = machine.cloud.shelf(NIC).get(key(reference["id"]))
        if found is not None:
            yield found


def addresses_of(cloud: LocalAzure, interface: Json) -> Iterator[Json]:
    """Yield the public addresses of an interface."""
    for config in interface["properties"]["ipConfigurations"]:
        reference = config["properties"].get("publicIPAddress")
        found = cloud.shelf(ADDRESS).get(key(reference["id"])) if reference else None
        if found is not None:
            yield found


def _release(cloud: LocalAzure, kind: str, identifier: str, options: Json) -> None:
    found = cloud.shelf(kind).get(key(identifier))
    if found is None:
        return
    dies = options.get("deleteOption") == "Delete" and kind not in cloud.keeps_children
    if kind == DISK:
        _detach(found)
    else:
        found["properties"].pop("virtualMachine", None)
        for address in list(addresses_of(cloud, found)):
            if dies:
                _release_address(cloud, address)
    if dies:
        del cloud.shelf(kind)[key(identifier)]


def _release_address(cloud: LocalAzure, address: Json) -> None:
    """Free an address from its interface, or delete it where its option says so."""
    properties: dict[str, Any] = address["properties"]
    properties.pop("ipConfiguration", None)
    if properties.get("deleteOption") == "Delete" and ADDRESS not in cloud.keeps_children:
        del cloud.shelf(ADDRESS)[key(address["id"])]


def _detach(disk: Json) -> None:
    disk.pop("managedBy", None)
    disk["properties"]["diskState"] = "Unattached"


def _vm_is_gone(broken: FailedLater) -> bool:
    return not any(kind.endswith("/virtualMachines") for kind in broken.remains)
