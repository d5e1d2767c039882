"""Galleries, definitions of images in them, and versions of those: made, tagged and deleted alone.

By Microsoft's REST reference, version 2024-03-03, "Galleries", "Gallery Images" and "Gallery Image
Versions" (https://learn.microsoft.com/en-us/rest/api/compute/galleries, …/gallery-images,
…/gallery-image-versions; read 2026-12-01).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.azure import attributes, fixtures, operations, timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.reads import child_of, group_of
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import DEFINITION, GALLERY, IMAGE, VERSION, key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

KINDS: Final = ("galleries", "definitions", "versions")
#: Type → the client's type of a whole one, of a change of one, and what its name may be.
_SHAPES: Final = {
    GALLERY: ("Gallery", "GalleryUpdate", r"[A-Za-z0-9]([A-Za-z0-9._]{0,78}[A-Za-z0-9])?"),
    DEFINITION: (
        "GalleryImage",
        "GalleryImageUpdate",
        r"[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9])?",
    ),
    VERSION: ("GalleryImageVersion", "GalleryImageVersionUpdate", r"\d+\.\d+\.\d+"),
}
_MOST: Final = 2**31 - 1  # of each number of a version
_REPLICAS: Final = 100  # in one region
_SECURITY: Final = "SecurityType"


def put(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Create one inside its parent. A second PUT changes only its tags."""
    group, path = group_of(cloud, request), request.path
    schema, _, form = _SHAPES[path.child]
    body = request.body_of(schema)
    location = attributes.place(body, path.child)
    _check_name(path.rest[-1] if path.rest else path.name, form, path.child)
    attributes.check_tags(body.get("tags"))
    present = cloud.shelf(path.child).get(key(path.child_id))
    if present is not None:
        present["tags"] = body.get("tags") or {}
        return operations.run(cloud, request, location, status=200, body=present)
    above = _above(cloud, request)
    shown = fixtures.resource(cloud, group["name"], GALLERY, path.name, location)
    shown |= {"id": "/".join((shown["id"], *path.rest)), "type": path.child}
    shown |= {"name": path.rest[-1]} if path.rest else {}
    shown |= {"tags": body.get("tags") or {}, "properties": dict(body.get("properties") or {})}
    if path.child == DEFINITION:
        _check_definition(cloud, shown, path.id)
    if path.child == VERSION:
        shown["properties"] |= _version(cloud, shown, above)
    properties = shown["properties"]
    properties["provisioningState"] = "Creating"
    fixtures.keep(cloud, path.child, shown)
    state = "Succeeded" if broken is None else "Failed"
    cloud.later(cloud.operation_seconds, lambda: properties.update(provisioningState=state))
    return operations.run(cloud, request, location, status=201, body=shown, broken=broken)


def patch(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Replace the tags of one."""
    group_of(cloud, request)
    path = request.path
    body = request.body_of(_SHAPES[path.child][1])
    found = child_of(cloud, request)
    attributes.check_tags(body.get("tags"))
    if body.get("properties"):
        raise ArmRefusal(501, "NotImplemented", "not in this cloud: a change of more than tags")
    found["tags"] = body.get("tags") or {}
    return operations.run(cloud, request, found["location"], status=200, body=found)


def delete(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Delete one that is empty. A missing one is no error."""
    group_of(cloud, request)
    at, shelf = key(request.path.child_id), cloud.shelf(request.path.child)
    found = shelf.get(at)
    if found is None:
        return ArmAnswer(204)
    within = [
        resource["id"]
        for kind in (DEFINITION, VERSION)
        for below, resource in cloud.shelf(kind).items()
        if below.startswith(f"{at}/")
    ]
    if within:
        text = "Cannot delete resource while nested resources exist. Some existing nested resource "
        text += f"IDs include: '{within[0]}'. Please delete all nested resources before deleting "
        raise ArmRefusal(409, "CannotDeleteResource", f"{text}this resource.")

    def gone() -> None:
        if shelf.get(at) is found:
            del shelf[at]

    if broken is None:
        found["properties"]["provisioningState"] = "Deleting"
    return operations.run(cloud, request, found["location"], effect=gone, broken=broken)


def _check_name(name: str, form: str, kind: str) -> None:
    if not re.fullmatch(form, name, re.ASCII):
        raise invalid("name", f"The name '{name}' is no name of a {kind}: {form}")
    if kind == VERSION and any(int(number) > _MOST for number in name.split(".")):
        raise invalid("name", f"The numbers of '{name}' must be 32-bit integers.")


def _above(cloud: LocalAzure, request: AzureRequest) -> Json:
    """The resource that it will be in; {}: a gallery is in its group. Raises `ArmRefusal`."""
    path = request.path
    if not path.rest:
        return {}
    above = key(path.child_id).rsplit("/", maxsplit=2)[0]
    found = cloud.shelf(path.child.rpartition("/")[0]).get(above)
    if found is None:
        name = "/".join((path.kind, path.name, *path.rest[:-2]))
        text = "Can not perform requested operation on nested resource. Parent resource "
        raise ArmRefusal(404, "ParentResourceNotFound", f"{text}'{name}' not found.")
    return found


def _check_definition(cloud: LocalAzure, shown: Json, gallery: str) -> None:
    """Raises `ArmRefusal` where another in the gallery has its publisher, offer and SKU."""
    wanted = shown["properties"]["identifier"]
    for at, other in cloud.shelf(DEFINITION).items():
        if at.startswith(f"{key(gallery)}/") and other["properties"]["identifier"] == wanted:
            text = f"Gallery image '{other['name']}' has the same publisher, offer and sku already."
            raise ArmRefusal(409, "Conflict", text)


def _version(cloud: LocalAzure, shown: Json, definition: Json) -> Json:
    """The properties that the service adds to a version. Raises `ArmRefusal` for a source that
    does not exist, or is not as the definition says."""
    properties = shown["properties"]
    source = properties["storageProfile"].get("source") or {}
    size, generation, security = _source(cloud, source)
    wanted = definition["properties"].get("hyperVGeneration", "V1")
    if generation != wanted:
        text = f"The resource with id '{shown['id']}' has a different Hypervisor generation "
        text += f"['{generation}'] than the parent gallery image Hypervisor generation "
        raise ArmRefusal(409, "Conflict", f"{text}['{wanted}'].")
    features = definition["properties"].get("features") or ()
    allowed = next(
        (feature["value"] for feature in features if feature["name"] == _SECURITY), "None"
    )
    if security and allowed != security:
        text = f"The source '{source.get('virtualMachineId')}' contains TrustedLaunch or "
        text += f"ConfidentialVM security data that cannot be used in image with '{allowed}' "
        text += "security type. Please use either TrustedLaunch or ConfidentialVM security type."
        raise ArmRefusal(409, "Conflict", text)
    profile: dict[str, Any] = dict(properties.get("publishingProfile") or {})
    regions = profile.get("targetRegions") or [{"name": shown["location"]}]
    if shown["location"] not in [region["name"].replace(" ", "").lower() for region in regions]:
        text = "The publishing profile must have the region of the gallery image version."
        raise invalid("galleryImageVersion.properties.publishingProfile.targetRegions", text)
    if any(not 1 <= region.get("regionalReplicaCount", 1) <= _REPLICAS for region in regions):
        raise invalid("regionalReplicaCount", f"It must be from 1 to {_REPLICAS}.")
    profile |= {"targetRegions": regions, "publishedDate": timestamps.written(cloud.now())}
    storage = {"source": source, "osDiskImage": {"sizeInGB": size}}
    return {"publishingProfile": profile, "storageProfile": storage}


def _source(cloud: LocalAzure, source: Json) -> tuple[int, str, str]:
    """The size of a source's disk in GiB, its generation, and its security type, if any.
    Raises `ArmRefusal`."""
    machine = cloud.living.get(key(source.get("virtualMachineId") or ""))
    if machine is not None:
        properties = machine.shown["properties"]
        disk = properties["storageProfile"]["osDisk"]
        whole = cloud.resource((disk.get("managedDisk") or {}).get("id", ""))
        generation = whole["properties"]["hyperVGeneration"] if whole else "V2"
        security = (properties.get("securityProfile") or {}).get("securityType", "")
        return disk["diskSizeGB"], generation, security
    image = cloud.shelf(IMAGE).get(key(source.get("id") or ""))
    if image is None:
        named = source.get("virtualMachineId") or source.get("id") or ""
        raise ArmRefusal(404, "NotFound", f"The source '{named}' was not found.")
    properties = image["properties"]
    size = properties["storageProfile"]["osDisk"]["diskSizeGB"]
    return size, properties.get("hyperVGeneration", "V1"), ""
