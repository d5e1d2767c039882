"""Resources that are made, changed and deleted alone: disks, snapshots, images, interfaces,
addresses."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.azure import attributes, fixtures, interfaces, operations, timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, not_allowed
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.reads import found_of, group_of
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import ADDRESS, DISK, IMAGE, NIC, SNAPSHOT, key, last

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

#: Type → the client's type of a whole one, and of a change of one.
SHAPES: Final = {
    DISK: ("Disk", "DiskUpdate"),
    SNAPSHOT: ("Snapshot", "SnapshotUpdate"),
    IMAGE: ("Image", "ImageUpdate"),
    NIC: ("NetworkInterface", "TagsObject"),
    ADDRESS: ("PublicIPAddress", "TagsObject"),
}


def put(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Create one. A second PUT changes only its tags."""
    group, path = group_of(cloud, request), request.path
    body = request.body_of(SHAPES[path.kind][0])
    location = attributes.place(body, path.kind)
    attributes.check_child_name(path.name, path.kind)
    attributes.check_tags(body.get("tags"))
    attributes.check_zones(body, location, f"{path.kind}/{path.name}")
    existing = cloud.shelf(path.kind).get(key(request.path.id))
    if existing is not None:
        existing["tags"] = body.get("tags") or {}
        return operations.run(cloud, request, location, status=200, body=existing)
    shown = fixtures.resource(cloud, group["name"], path.kind, path.name, location)
    shown |= {"tags": body.get("tags") or {}}
    shown |= {name: body[name] for name in ("sku", "zones") if body.get(name)}
    shown["properties"] = _properties(cloud, path.kind, shown, body)
    if broken is None:
        fixtures.keep(cloud, path.kind, shown)
    status = 202 if path.kind in (DISK, SNAPSHOT) else 201
    return operations.run(cloud, request, location, status=status, body=shown, broken=broken)


def patch(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    group_of(cloud, request)
    body = request.body_of(SHAPES[request.path.kind][1])
    found = found_of(cloud, request)
    attributes.check_tags(body.get("tags"))
    if body.get("properties") or body.get("sku"):
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: a change of more than tags")
    found["tags"] = body.get("tags") or {}
    return ArmAnswer(200, found)


def merge_tags(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Change the tags of a group, by their own resource."""
    body = request.resource
    if body.get("operation") != "Merge" or request.path.name != "default":
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: tags but by a merge")
    group = group_of(cloud, request)
    attributes.check_tags((body.get("properties") or {}).get("tags"))
    group["tags"] = {**group["tags"], **body["properties"]["tags"]}
    return ArmAnswer(200, {"name": "default", "properties": {"tags": group["tags"]}})


def delete(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Delete one that nothing uses. A missing one is no error."""
    group_of(cloud, request)
    at = key(request.path.id)
    found = cloud.shelf(request.path.kind).get(at)
    if found is None:
        return ArmAnswer(204)
    _check_unused(cloud, found)

    def gone() -> None:
        if cloud.shelf(request.path.kind).get(at) is not found:
            return
        if request.path.kind == NIC:
            for config in found["properties"]["ipConfigurations"]:
                _free(cloud, config["properties"].get("publicIPAddress"))
        del cloud.shelf(request.path.kind)[at]

    return operations.run(cloud, request, found["location"], effect=gone, broken=broken)


def _check_unused(cloud: LocalAzure, found: Json) -> None:
    """Raises `ArmRefusal` in the words of each kind."""
    kind, name, properties = found["type"], found["name"], found["properties"]
    if kind == DISK and found.get("managedBy"):
        text = f"Disk {name} is attached to VM {found['managedBy']}."
        raise not_allowed(text)
    if kind == NIC and properties.get("virtualMachine"):
        text = f"Network Interface {name} is used by existing resource "
        text += f"{properties['virtualMachine']['id']}. In order to delete the network interface, "
        raise ArmRefusal(400, "NicInUse", f"{text}it must be dissociated from the resource.")
    if kind == NIC and cloud.reserved.get(key(found["id"]), 0.0) > cloud.now():
        text = "Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Please "
        text += "provide another nic(s) or retry after 180 seconds. "
        raise ArmRefusal(400, "NicReservedForAnotherVm", f"{text}It is {name}.")
    if kind == ADDRESS and properties.get("ipConfiguration"):
        user = properties["ipConfiguration"]["id"]
        text = f"Public IP address {found['id']} can not be deleted since it is still allocated to "
        text += f"resource {user}."
        raise ArmRefusal(400, "PublicIPAddressCannotBeDeleted", text)


def _free(cloud: LocalAzure, reference: Json | None) -> None:
    address = cloud.shelf(ADDRESS).get(key(reference["id"])) if reference else None
    if address is None:
        return
    address["properties"].pop("ipConfiguration", None)
    if address["properties"].get("deleteOption") == "Delete":
        del cloud.shelf(ADDRESS)[key(address["id"])]


def _properties(cloud: LocalAzure, kind: str, shown: Json, body: Json) -> Json:
    properties: dict[str, Any] = dict(body.get("properties") or {})
    if kind == NIC:
        return interfaces.new_interface(cloud, shown, body)
    if kind == ADDRESS:
        return interfaces.new_address(cloud, body | {"location": shown["location"]})
    if kind == IMAGE:
        return {"storageProfile": {}, "hyperVGeneration": "V2"} | properties | _SUCCEEDED
    source = (properties.get("creationData") or {}).get("sourceResourceId")
    if source is not None and not any(
        key(source) in cloud.shelf(source_type) for source_type in (DISK, SNAPSHOT)
    ):
        text = f"The source resource '{last(source)}' was not found."
        raise ArmRefusal(404, "ResourceNotFound", text)
    made = {
        "timeCreated": timestamps.written(cloud.now()),
        "uniqueId": str(uuid.uuid4()),
        "diskState": "Unattached",
        "diskSizeGB": 30,
    }
    return made | properties | _SUCCEEDED


_SUCCEEDED: Final = {"provisioningState": "Succeeded"}
