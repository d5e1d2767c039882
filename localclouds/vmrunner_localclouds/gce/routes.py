"""The function that answers each method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import disks, images, insert, mutations, operations, reads
from vmrunner_localclouds.gce.api_error import GceRefusal, invalid
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

Handler = Callable[["LocalGce", GceRequest, BrokenOperation | None], Json]


def find(method: str) -> Handler | None:
    """Find the function of a method; None when it is not written yet."""
    return KNOWN.get(method)


def admit(cloud: LocalGce, request: GceRequest) -> None:
    """Raises `GceRefusal` where the project or the place is not there, or out of reach."""
    project = request.path.get("project")
    collection = request.action.partition(".")[0]
    if collection == "images":
        return  # other projects share theirs
    if project not in (cloud.project, cloud.number):
        raise GceRefusal(404, "notFound", f"Failed to find project {project}")
    kind, _, place = request.scope.partition("/")
    if kind in ("global", collection):
        return
    if request.scope in cloud.unreachable:
        raise GceRefusal(503, "backendError", f"Cannot reach '{request.scope}'.")
    if place not in cloud.shelf(kind, "global"):
        raise invalid(kind[:-1], place, f"Unknown {kind[:-1]}.")


_GET: Final = (
    *("addresses", "disks", "firewalls", "images", "instances", "machineTypes", "networks"),
    *("regions", "snapshots", "subnetworks", "zones"),
    *("globalAddresses", "globalOperations", "regionOperations", "zoneOperations"),
)
_AGGREGATED: Final = (
    *("addresses", "disks", "globalOperations", "instances", "machineTypes", "subnetworks"),
)
_TESTABLE: Final = ("disks", "images", "instances", "snapshots", "subnetworks")
KNOWN: Final[dict[str, Handler]] = {
    **{f"{collection}.get": reads.get for collection in _GET},
    **{f"{collection}.list": reads.listed for collection in _GET},
    **{f"{collection}.aggregatedList": reads.aggregated for collection in _AGGREGATED},
    **{f"{place}Operations.wait": reads.get for place in ("global", "region", "zone")},
    **{f"{place}Operations.delete": operations.delete for place in ("global", "region", "zone")},
    "addresses.delete": mutations.remove,
    "globalAddresses.delete": mutations.remove,
    "disks.delete": disks.delete,
    "images.delete": images.delete,
    "images.deprecate": images.deprecate,
    "images.getFromFamily": reads.from_family,
    "images.insert": images.insert,
    "images.patch": images.patch,
    "instances.bulkInsert": insert.bulk_insert,
    "instances.delete": mutations.delete,
    "instances.getSerialPortOutput": mutations.serial,
    "instances.insert": insert.insert,
    "instances.resume": mutations.resume,
    "instances.setDeletionProtection": mutations.protect,
    "instances.setLabels": mutations.set_labels,
    "instances.setMetadata": mutations.set_metadata,
    "instances.setScheduling": mutations.set_scheduling,
    "instances.stop": mutations.stop,
    "instances.suspend": mutations.suspend,
    **{f"{collection}.testIamPermissions": mutations.permitted for collection in _TESTABLE},
    "projects.get": reads.project,
    "snapshots.delete": mutations.remove,
}
