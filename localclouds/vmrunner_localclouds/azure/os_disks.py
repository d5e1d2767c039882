"""The disk that a VM starts from: a resource of its own, or a part of its host."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.azure import attributes, fixtures, resource_ids, timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid, missing
from vmrunner_localclouds.azure.resource_ids import DISK, GALLERY, IMAGE, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_VERSION: Final = re.compile(
    r"(.+/galleries/[^/]+/images/[^/]+)(/versions/([^/]+))?", re.IGNORECASE
)
_LATEST: Final = "latest"
_SCSI: Final = "SCSI"


def plan(
    cloud: LocalAzure, group: str, owner: Json, body: Json, size: str
) -> tuple[Json | None, Json]:
    """The disk, not yet on its shelf, and the VM's `osDisk`. Raises `ArmRefusal`."""
    storage = (body.get("properties") or {}).get("storageProfile") or {}
    os_disk = storage.get("osDisk")
    if os_disk is None:
        raise missing("storageProfile.osDisk")
    if os_disk["createOption"] != "FromImage":
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: a disk not from an image")
    if storage.get("dataDisks"):
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: data disks")
    image = image_of(cloud, storage.get("imageReference"))
    check_bootable(image, size, storage.get("diskControllerType"))
    size_gb = os_disk.get("diskSizeGB") or image["size"]
    if size_gb < image["size"]:
        text = f"The specified disk size {size_gb} GB is smaller than the size of the "
        text += f"corresponding disk in the VM image: {image['size']} GB. This is not allowed."
        raise ArmRefusal(409, "ResizeDiskError", text, target="osDisk.diskSizeGB")
    reference: Json = {
        "osType": "Linux",
        "createOption": "FromImage",
        "caching": os_disk.get("caching", "ReadWrite"),
        "deleteOption": os_disk.get("deleteOption", "Detach"),
        "diskSizeGB": size_gb,
    }
    if os_disk.get("diffDiskSettings"):
        _check_local(os_disk, size, size_gb)
        name = os_disk.get("name") or f"{owner['name']}_OsDisk_1_{uuid.uuid4().hex}"
        return None, reference | {"name": name, "diffDiskSettings": os_disk["diffDiskSettings"]}
    disk = _disk(cloud, group, owner, body, os_disk, size_gb, image)
    identifier = resource_ids.shouted(disk["id"]) if cloud.shouts else disk["id"]
    managed = {"id": identifier, "storageAccountType": disk["sku"]["name"]}
    return disk, reference | {"name": disk["name"], "managedDisk": managed}


def image_of(cloud: LocalAzure, reference: Json | None) -> Json:
    """The `size` in GiB, `id`, `controllers` and `generation` of the image that a reference
    means. Raises `ArmRefusal`."""
    if not reference:
        raise missing("storageProfile.imageReference")
    identifier = reference.get("id")
    if not identifier:
        return _offered(cloud, reference)
    found = cloud.shelf(IMAGE).get(key(identifier)) or _version(cloud, identifier)
    if found is None:
        what = identifier.partition("/providers/")[2]
        raise ArmRefusal(404, "ImageNotFound", f"The Image '{what}' was not found.")
    storage = found["properties"]["storageProfile"]
    if "osDiskImage" in storage:
        definition = cloud.shelf(f"{GALLERY}/images")[key(found["id"].partition("/versions/")[0])]
        properties = definition["properties"]
        features = {
            feature["name"]: feature["value"] for feature in properties.get("features") or ()
        }
        return {
            "id": found["id"],
            "size": storage["osDiskImage"]["sizeInGB"],
            "controllers": _words(features.get("DiskControllerTypes", _SCSI)),
            "generation": properties.get("hyperVGeneration", "V1"),
        }
    # A managed image has no place for another controller.
    return {
        "id": found["id"],
        "size": storage["osDisk"]["diskSizeGB"],
        "controllers": _words(_SCSI),
        "generation": found["properties"].get("hyperVGeneration", "V1"),
    }


def check_bootable(image: Json, size: str, controller: str | None) -> None:
    """Raises `ArmRefusal` where a size has no controller that the image can boot from, or none of
    its generation."""
    spec = fixtures.SIZES[size]
    if not (spec.has & image["controllers"] & ({controller} if controller else spec.has)):
        text = f"The VM size '{size}' cannot boot with OS image or disk. Please check that disk "
        text += "controller types supported by the OS image or disk is one of the supported disk "
        text += f"controller types for the VM size '{size}'. Please query sku api at "
        text += "https://aka.ms/azure-compute-skus to determine supported disk controller types "
        raise invalid("storageProfile.diskControllerType", f"{text}for the VM size.")
    if image["generation"] not in _words(spec.generations):
        text = f"The selected VM size '{size}' cannot boot Hypervisor Generation "
        text += f"'{image['generation'].removeprefix('V')}'. If this was a Create operation please "
        text += "check that the Hypervisor Generation of the Image matches the Hypervisor "
        raise ArmRefusal(400, "BadRequest", f"{text}Generation of the selected VM Size.")


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text.split(","))


def _version(cloud: LocalAzure, identifier: str) -> Json | None:
    """Find a version in a gallery; without one, or `latest`, the newest."""
    named = _VERSION.fullmatch(identifier)
    if named is None:
        return None
    shelf = cloud.shelf(f"{GALLERY}/images/versions")
    if named[3] and named[3].lower() != _LATEST:
        return shelf.get(key(identifier))
    all_of = [
        version for version in shelf.values() if key(version["id"]).startswith(key(named[1]) + "/")
    ]
    return max(all_of, key=lambda version: cloud.created[key(version["id"])], default=None)


def _offered(cloud: LocalAzure, reference: Json) -> Json:
    """An image of the marketplace."""
    parts = tuple(str(reference.get(part, "")) for part in ("publisher", "offer", "sku"))
    if parts not in cloud.marketplace:
        text = "The platform image '" + ":".join([*parts, str(reference.get("version", ""))])
        raise ArmRefusal(404, "PlatformImageNotFound", f"{text}' is not available.")
    size = cloud.marketplace[parts]
    return {"id": "", "size": size, "controllers": _words("SCSI, NVMe"), "generation": "V2"}


def _check_local(os_disk: Json, size: str, size_gb: int) -> None:
    if os_disk.get("caching") != "ReadOnly":
        text = "Differencing disk caching must be 'ReadOnly'."
        raise invalid("osDisk.caching", text)
    room = fixtures.SIZES[size].placements
    place = os_disk["diffDiskSettings"].get("placement", next(iter(room), "ResourceDisk"))
    most = room.get(place, 0)
    if size_gb > most:
        text = f"OS disk of Ephemeral VM with size greater than {most} GB is not allowed for VM "
        text += f"size {size} when the DiffDiskPlacement is {place}."
        raise ArmRefusal(409, "NotSupported", text, target="osDisk.diffDiskSettings")


def _disk(
    cloud: LocalAzure, group: str, owner: Json, body: Json, os_disk: Json, size_gb: int, image: Json
) -> Json:
    name = os_disk.get("name") or f"{owner['name']}_OsDisk_1_{uuid.uuid4().hex}"
    attributes.check_child_name(name, "disk")
    shown = fixtures.resource(cloud, group, DISK, name, owner["location"])
    if key(shown["id"]) in cloud.shelf(DISK):
        text = f"Disk {name} already exists in resource group {group.upper()}. Only "
        text += "CreateOption.Attach is supported."
        raise ArmRefusal(409, "ConflictingUserInput", text, target="disk.name")
    kind = (os_disk.get("managedDisk") or {}).get("storageAccountType", "Premium_LRS")
    properties: dict[str, Any] = {
        "osType": "Linux",
        "hyperVGeneration": "V2",
        "creationData": {"createOption": "FromImage"},
        "diskSizeGB": size_gb,
        "diskSizeBytes": size_gb * 2**30,
        "timeCreated": timestamps.written(cloud.now()),
        "provisioningState": "Succeeded",
        "diskState": "Attached",
        "uniqueId": str(uuid.uuid4()),
    }
    if image["id"]:
        properties["creationData"]["imageReference"] = {"id": image["id"]}
    tags = body.get("tags") or {} if cloud.disks_inherit_tags else {}
    shown |= {"tags": dict(tags), "sku": {"name": kind}, "properties": properties}
    shown |= {"zones": body["zones"]} if body.get("zones") else {}
    shown["managedBy"] = resource_ids.shouted(owner["id"]) if cloud.shouts else owner["id"]
    return shown
