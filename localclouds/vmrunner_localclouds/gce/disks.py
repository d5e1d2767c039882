"""Disks: made with a VM, or attached to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmrunner_localclouds.gce import fixtures, links, operations, timestamps
from vmrunner_localclouds.gce.api_error import GceRefusal, exists, invalid, not_found
from vmrunner_localclouds.gce.attributes import check_labels
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce


def attach(
    cloud: LocalGce, zone: str, owner: Json, attachments: list[Json]
) -> tuple[list[Json], list[Json]]:
    """The disks as the VM shows them, and the new ones among them, which are not yet on the
    shelf."""
    boots = [disk for disk in attachments if disk.get("boot")]
    if len(boots) != 1 or not attachments[0].get("boot"):
        text = "Boot disk must be specified, as the first disk."
        raise invalid("resource.disks", "", text)
    shown, made = [], []
    for index, disk in enumerate(attachments):
        path = f"resource.disks[{index}]"
        if "source" in disk:
            found = _existing(cloud, zone, disk)
        else:
            found = _new(cloud, zone, owner, disk, index, path)
            made.append(found)
        shown.append(_attached(disk, found, index))
    return shown, made


def _attached(attachment: Json, disk: Json, index: int) -> Json:
    kept = ("architecture", "guestOsFeatures", "licenses")
    return {
        "kind": "compute#attachedDisk",
        "type": attachment.get("type", "PERSISTENT"),
        "mode": attachment.get("mode", "READ_WRITE"),
        "source": disk["selfLink"],
        "deviceName": attachment.get("deviceName", f"persistent-disk-{index}"),
        "index": index,
        "boot": bool(attachment.get("boot")),
        "autoDelete": bool(attachment.get("autoDelete")),
        "interface": attachment.get("interface", "SCSI"),
        "diskSizeGb": disk["sizeGb"],
        **{key: disk[key] for key in kept if key in disk},
    }


def _existing(cloud: LocalGce, zone: str, attachment: Json) -> Json:
    relative = links.relative(attachment["source"], cloud.project)
    disk = cloud.find("disks", f"zones/{zone}", links.last(relative))
    if disk is None or links.relative(disk["selfLink"], cloud.project) != relative:
        raise not_found(relative)
    if disk.get("users"):
        text = f"The disk resource '{relative}' is already being used by '{disk['users'][0]}'"
        raise GceRefusal(400, "resourceInUseByAnotherResource", text)
    return disk


def _new(cloud: LocalGce, zone: str, owner: Json, attachment: Json, index: int, path: str) -> Json:
    params = attachment.get("initializeParams", {})
    name = params.get("diskName") or (owner["name"] if index == 0 else f"{owner['name']}-{index}")
    if name in cloud.shelf("disks", f"zones/{zone}"):
        raise exists(f"projects/{cloud.project}/zones/{zone}/disks/{name}")
    check_labels(params.get("labels", {}), f"{path}.initializeParams.labels")
    image = _image(cloud, params, path)
    size = int(
        params.get("diskSizeGb") or attachment.get("diskSizeGb") or image.get("diskSizeGb", "0")
    )
    if size < int(image.get("diskSizeGb", "1")):
        text = (
            f"Requested disk size cannot be smaller than the image size ({image['diskSizeGb']} GB)"
        )
        raise invalid(f"{path}.initializeParams.diskSizeGb", size, text)
    made = fixtures.resource(cloud, "disk", f"zones/{zone}/disks", name, cloud.now())
    made |= {
        "zone": links.link(f"projects/{cloud.project}/zones/{zone}"),
        "sizeGb": str(size),
        "status": "READY",
        "type": _type(cloud, zone, owner, params, path),
        "users": [owner["selfLink"]],
        "labelFingerprint": fixtures.fingerprint(),
        "physicalBlockSizeBytes": "4096",
        "lastAttachTimestamp": timestamps.written(cloud.now()),
        **({"labels": params["labels"]} if params.get("labels") else {}),
    }
    if image:
        made |= {"sourceImage": image["selfLink"], "sourceImageId": image["id"]}
        made |= {k: image[k] for k in ("architecture", "guestOsFeatures", "licenses") if k in image}
    return made


def _image(cloud: LocalGce, params: Json, path: str) -> Json:
    """Find the image of a disk by link or by family; empty: a blank disk."""
    source = params.get("sourceImage")
    if source is None:
        return {}
    relative = links.relative(source, cloud.project)
    form = r"projects/([^/]+)/global/images/(family/)?([^/]+)"
    named = re.fullmatch(form, relative)
    found = None
    if named is not None:
        project, family, name = named.groups()
        found = newest(cloud, project, name) if family else cloud.images(project).get(name)
    if found is None:
        text = "The referenced image resource cannot be found."
        raise invalid(f"{path}.initializeParams.sourceImage", source, text)
    if found["status"] != "READY":
        raise GceRefusal(400, "resourceNotReady", f"The resource '{relative}' is not ready")
    return found


def newest(cloud: LocalGce, project: str, family: str) -> Json | None:
    """The last image of a family that is not deprecated."""
    images = [
        image
        for image in cloud.images(project).values()
        if image.get("family") == family
        and image.get("deprecated", {}).get("state", "ACTIVE") == "ACTIVE"
    ]
    return max(images, key=lambda i: timestamps.read(i["creationTimestamp"]), default=None)


def _type(cloud: LocalGce, zone: str, owner: Json, params: Json, path: str) -> str:
    kind = links.last(owner["machineType"])
    later = kind.startswith("n4-")  # takes Hyperdisk alone, which E2 does not take
    usual = "hyperdisk-balanced" if later else "pd-standard"
    disk_type = params.get("diskType", f"zones/{zone}/diskTypes/{usual}")
    relative = links.relative(disk_type, cloud.project)
    name = links.last(relative)
    if relative != f"projects/{cloud.project}/zones/{zone}/diskTypes/{name}" or (
        name not in fixtures.DISK_TYPES
    ):
        text = "The referenced diskType resource cannot be found."
        raise invalid(f"{path}.initializeParams.diskType", disk_type, text)
    hyper = name.startswith("hyperdisk-")
    if (later and not hyper) or (hyper and kind.startswith("e2-")):
        text = f"[{name}] features are not compatible for creating instance with {kind}."
        raise GceRefusal(400, "badRequest", text)
    return links.link(relative)


def delete(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Delete a disk that no VM uses."""
    relative = f"projects/{cloud.project}/{request.scope}/disks/{request.path['disk']}"
    disk = cloud.find("disks", request.scope, request.path["disk"])
    if disk is None:
        raise not_found(relative)
    if disk.get("users"):
        user = links.relative(disk["users"][0], cloud.project)
        text = f"The disk resource '{relative}' is already being used by '{user}'"
        raise GceRefusal(400, "resourceInUseByAnotherResource", text)
    shelf = cloud.shelf("disks", request.scope)

    def gone() -> None:
        shelf.pop(disk["name"], None)

    return operations.run(cloud, request, "delete", disk, effect=gone, broken=broken)
