"""Which function answers which method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.testing.localgce import births, changes, disks, operations, pictures, reading
from vmrunner.testing.localgce.discovery import Json
from vmrunner.testing.localgce.faults import Broken
from vmrunner.testing.localgce.refusal import Refusal, invalid
from vmrunner.testing.localgce.requests import Request

if TYPE_CHECKING:
    from vmrunner.testing.localgce.gce import LocalGce

Handler = Callable[["LocalGce", Request, Broken | None], Json]


def find(method: str) -> Handler | None:
    """None: nobody has written it yet."""
    return KNOWN.get(method)


def admit(cloud: LocalGce, request: Request) -> None:
    """Raises `Refusal` where the project or the place is not there, or out of reach."""
    project = request.path.get("project")
    collection = request.action.partition(".")[0]
    if collection == "images":
        return  # other projects share theirs
    if project not in (cloud.project, cloud.number):
        raise Refusal(404, "notFound", f"Failed to find project {project}")
    kind, _, place = request.scope.partition("/")
    if kind in ("global", collection):
        return
    if request.scope in cloud.unreachable:
        raise Refusal(503, "backendError", f"Cannot reach '{request.scope}'.")
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
    **{f"{collection}.get": reading.get for collection in _GET},
    **{f"{collection}.list": reading.listed for collection in _GET},
    **{f"{collection}.aggregatedList": reading.aggregated for collection in _AGGREGATED},
    **{f"{place}Operations.wait": reading.get for place in ("global", "region", "zone")},
    **{f"{place}Operations.delete": operations.delete for place in ("global", "region", "zone")},
    "addresses.delete": changes.remove,
    "globalAddresses.delete": changes.remove,
    "disks.delete": disks.delete,
    "images.delete": pictures.delete,
    "images.deprecate": pictures.deprecate,
    "images.getFromFamily": reading.from_family,
    "images.insert": pictures.insert,
    "images.patch": pictures.patch,
    "instances.bulkInsert": births.bulk_insert,
    "instances.delete": changes.delete,
    "instances.getSerialPortOutput": changes.serial,
    "instances.insert": births.insert,
    "instances.setDeletionProtection": changes.protect,
    "instances.setLabels": changes.set_labels,
    "instances.setMetadata": changes.set_metadata,
    "instances.setScheduling": changes.set_scheduling,
    "instances.stop": changes.stop,
    **{f"{collection}.testIamPermissions": changes.permitted for collection in _TESTABLE},
    "projects.get": reading.project,
    "snapshots.delete": changes.remove,
}
