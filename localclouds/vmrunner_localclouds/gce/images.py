"""Images: made of a disk, moved between families, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.gce import fixtures, links, operations
from vmrunner_localclouds.gce.api_error import GceRefusal, exists, invalid, not_found
from vmrunner_localclouds.gce.attributes import check_labels
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

#: What of an image can be changed.
_PATCHABLE = {"deprecated", "description", "family"}


def insert(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Make an image of a disk, whose VM must be gone or off."""
    body = request.resource
    name, project = body.get("name", ""), _own(cloud, request)
    if name in cloud.images(project):
        raise exists(f"projects/{project}/global/images/{name}")
    check_labels(body.get("labels", {}), "labels")
    disk = _source(cloud, body)
    more = {key: body[key] for key in ("labels", "description") if key in body}
    shown = fixtures.add_image(
        cloud,
        project,
        name,
        family=body.get("family", ""),
        disk_gb=int(disk["sizeGb"]),
        status="PENDING" if broken is None else "FAILED",
        sourceDisk=disk["selfLink"],
        sourceDiskId=disk["id"],
        **more,
    )

    def effect() -> None:
        shown["status"] = "READY"

    return operations.run(cloud, request, "insert", shown, effect=effect, broken=broken)


def patch(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    shown, body = _named(cloud, request), request.resource
    other = body.keys() - _PATCHABLE
    if other:
        raise invalid(min(other), body[min(other)], "The field cannot be changed.")

    def effect() -> None:
        shown.update(body)

    return operations.run(cloud, request, "patch", shown, effect=effect, broken=broken)


def deprecate(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Set the state of an image; an empty one resets it."""
    shown, body = _named(cloud, request), request.resource

    def effect() -> None:
        shown.pop("deprecated", None)
        shown.update({"deprecated": body} if body.get("state") else {})

    return operations.run(cloud, request, "deprecate", shown, effect=effect, broken=broken)


def delete(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Delete an image. VMs that were made of it go on."""
    shown, shelf = _named(cloud, request), cloud.images(cloud.project)

    def effect() -> None:
        shelf.pop(shown["name"], None)

    return operations.run(cloud, request, "delete", shown, effect=effect, broken=broken)


def _own(cloud: LocalGce, request: GceRequest) -> str:
    project = request.path["project"]
    if project != cloud.project:
        text = f"Required 'compute.images.create' permission for 'projects/{project}'"
        raise GceRefusal(403, "forbidden", text)
    return project


def _named(cloud: LocalGce, request: GceRequest) -> Json:
    project, name = _own(cloud, request), request.path["image"]
    shown = cloud.images(project).get(name)
    if shown is None:
        raise not_found(f"projects/{project}/global/images/{name}")
    return shown


def _source(cloud: LocalGce, body: Json) -> Json:
    link = body.get("sourceDisk", "")
    relative = links.relative(link, cloud.project)
    disk = next(
        (
            candidate
            for shelf in cloud.shelves("disks").values()
            for candidate in shelf.values()
            if links.relative(candidate["selfLink"], cloud.project) == relative
        ),
        None,
    )
    if disk is None:
        raise invalid("resource.sourceDisk", link, "The referenced disk cannot be found.")
    if any(cloud.machine(user).state == "RUNNING" for user in disk.get("users", ())):
        text = f"The disk resource '{relative}' is already being used by '{disk['users'][0]}'"
        raise GceRefusal(400, "resourceInUseByAnotherResource", text)
    return disk
