"""Changes of a VM, and of the resources that only go: delete, stop, labels, metadata, …"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import fixtures, links, operations, scheduling
from vmrunner_localclouds.gce.api_error import GceRefusal, invalid, not_found, not_ready
from vmrunner_localclouds.gce.attributes import check_labels, check_metadata
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import STOCKOUT, UNSUPPORTED, BrokenOperation
from vmrunner_localclouds.gce.machines import GceMachine
from vmrunner_localclouds.gce.reads import collection_of
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

_SERIAL: Final = 1024 * 1024  # bytes of a serial port's output that are kept


def delete(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Delete a VM. The operation ends when it is gone, or `broken` at once, and then it lives
    on."""
    machine = _machine(cloud, request)
    if machine.shown["deletionProtection"]:
        text = "Invalid resource usage: 'Resource cannot be deleted if it's protected against "
        raise GceRefusal(400, "invalidResourceUsage", text + "deletion.'.")
    forced = request.query.get("noGracefulShutdown") == "true"
    if machine.deleting and not forced:
        raise not_ready(_relative(cloud, machine))
    if broken is not None:
        return operations.run(cloud, request, "delete", machine.shown, broken=broken)
    machine.stuck = machine.stuck and not forced
    return operations.follow(cloud, request, "delete", machine.shown, machine.end)


def stop(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    machine = _machine(cloud, request)
    if machine.deleting:
        raise not_ready(_relative(cloud, machine))
    if broken is not None or machine.state == "TERMINATED":
        return operations.run(cloud, request, "stop", machine.shown, broken=broken)
    return operations.follow(cloud, request, "stop", machine.shown, machine.stop)


def suspend(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Suspend a running VM; the operation fails for any other."""
    machine = _settled(cloud, request)
    if machine.state != "RUNNING":
        broken = UNSUPPORTED
    if broken is not None:
        return operations.run(cloud, request, "suspend", machine.shown, broken=broken)
    work = machine.ignore_suspension if cloud.deaf_guests else machine.suspend
    return operations.follow(cloud, request, "suspend", machine.shown, work)


def resume(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Resume a suspended VM, if its zone has room for it; the operation fails for any other."""
    machine = _settled(cloud, request)
    if machine.state != "SUSPENDED":
        broken = UNSUPPORTED
    elif broken is None and machine.dry:
        broken = STOCKOUT
    if broken is not None:
        return operations.run(cloud, request, "resume", machine.shown, broken=broken)
    return operations.follow(cloud, request, "resume", machine.shown, machine.resume)


def set_labels(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    machine, body = _machine(cloud, request), request.resource
    _same(body.get("labelFingerprint"), machine.shown["labelFingerprint"], "labels")
    check_labels(body.get("labels", {}), "labels")

    def effect() -> None:
        machine.shown.pop("labels", None)
        machine.shown.update({"labels": body["labels"]} if body.get("labels") else {})
        machine.shown["labelFingerprint"] = fixtures.fingerprint()

    return _at_once(cloud, request, "setLabels", machine, effect, broken)


def set_metadata(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    machine, body = _machine(cloud, request), request.resource
    _same(body.get("fingerprint"), machine.shown["metadata"]["fingerprint"], "metadata")
    check_metadata(body, "metadata")

    def effect() -> None:
        machine.shown["metadata"] = {
            "kind": "compute#metadata",
            "fingerprint": fixtures.fingerprint(),
            **({"items": body["items"]} if body.get("items") else {}),
        }

    return _at_once(cloud, request, "setMetadata", machine, effect, broken)


def set_scheduling(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Replace the scheduling; a new deadline counts from now on."""
    machine = _machine(cloud, request)
    filled = scheduling.filled(request.resource, cloud.now())
    if filled["provisioningModel"] != machine.shown["scheduling"]["provisioningModel"]:
        raise invalid("scheduling.provisioningModel", "", "It cannot be changed.")

    def effect() -> None:
        machine.shown["scheduling"] = filled
        machine.arm()

    return _at_once(cloud, request, "setScheduling", machine, effect, broken)


def protect(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Set or clear the protection against deletion."""
    machine = _machine(cloud, request, "resource")
    wanted = request.query.get("deletionProtection", "true") == "true"

    def effect() -> None:
        machine.shown["deletionProtection"] = wanted

    return _at_once(cloud, request, "setDeletionProtection", machine, effect, broken)


def serial(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    """The first port has the guest's output; the others are silent."""
    machine = _machine(cloud, request)
    port, start = int(request.query.get("port", "1")), int(request.query.get("start", "0"))
    if not 1 <= port <= 4:
        raise invalid("port", port, "Must be from 1 to 4.")
    output = machine.output if port == 1 else b""
    end = len(output)
    start = max(start if start >= 0 else end + start, end - _SERIAL, 0)
    return {
        "kind": "compute#serialPortOutput",
        "contents": output[start:].decode("utf-8", "replace"),
        "start": str(start),
        "next": str(end),
        "selfLink": f"{machine.shown['selfLink']}/serialPort",
    }


def permitted(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    """Answer with the requested permissions that the fault plan does not deny; the resource must
    exist."""
    collection = request.action.partition(".")[0]
    if cloud.find(collection, request.scope, request.path["resource"]) is None:
        name = request.path["resource"]
        raise not_found(f"projects/{cloud.project}/{request.scope}/{collection}/{name}")
    permissions = request.resource.get("permissions", [])
    granted = [
        permission
        for permission in permissions
        if not set(_methods(permission)) & cloud.faults.denied
    ]
    return {"permissions": granted} if granted else {}


def remove(cloud: LocalGce, request: GceRequest, broken: BrokenOperation | None) -> Json:
    """Delete an address or a snapshot."""
    collection = collection_of(request.action)
    name = request.path["address" if collection == "addresses" else "snapshot"]
    found = cloud.find(collection, request.scope, name)
    if found is None:
        raise not_found(f"projects/{cloud.project}/{request.scope}/{collection}/{name}")
    if found.get("users"):
        relative = links.relative(found["selfLink"], cloud.project)
        user = links.relative(found["users"][0], cloud.project)
        text = f"The {collection[:-2]} resource '{relative}' is already being used by '{user}'"
        raise GceRefusal(400, "resourceInUseByAnotherResource", text)
    shelf = cloud.shelf(collection, request.scope)

    def effect() -> None:
        shelf.pop(found["name"], None)

    return operations.run(cloud, request, "delete", found, effect=effect, broken=broken)


# --- within --------------------------------------------------------------------------------------


def _at_once(
    cloud: LocalGce,
    request: GceRequest,
    kind: str,
    machine: GceMachine,
    effect: Callable[[], None],
    broken: BrokenOperation | None,
) -> Json:
    if machine.deleting:
        raise not_ready(_relative(cloud, machine))
    return operations.run(cloud, request, kind, machine.shown, effect=effect, broken=broken)


def _machine(cloud: LocalGce, request: GceRequest, parameter: str = "instance") -> GceMachine:
    name = request.path[parameter]
    shown = cloud.find("instances", request.scope, name)
    if shown is None or shown["selfLink"] in cloud.hidden:
        raise not_found(f"projects/{cloud.project}/{request.scope}/instances/{name}")
    return cloud.machine(shown["selfLink"])


def _settled(cloud: LocalGce, request: GceRequest) -> GceMachine:
    """A VM in no transition. Raises `GceRefusal`."""
    machine = _machine(cloud, request)
    if machine.state not in ("RUNNING", "SUSPENDED", "TERMINATED"):
        raise not_ready(_relative(cloud, machine))
    return machine


def _relative(cloud: LocalGce, machine: GceMachine) -> str:
    return links.relative(machine.shown["selfLink"], cloud.project)


def _same(supplied: str | None, current: str, what: str) -> None:
    """Raises `GceRefusal` where another change came between the read and this one."""
    if supplied is None or _bytes(supplied) != _bytes(current):
        text = f"Supplied fingerprint does not match current {what} fingerprint."
        raise GceRefusal(412, "conditionNotMet", text)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, altchars=b"-_")


def _methods(permission: str) -> list[str]:
    """`compute.instances.create` is what `instances.insert` needs."""
    _, _, rest = permission.partition(".")
    collection, _, verb = rest.partition(".")
    verbs = {"create": ["insert"], "list": ["list", "aggregatedList"]}.get(verb, [verb])
    return [f"{collection}.{verb}" for verb in verbs]
