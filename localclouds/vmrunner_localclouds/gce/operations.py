"""Operations: changes under way, and their outcomes."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import links, timestamps
from vmrunner_localclouds.gce.api_error import GceRefusal, invalid, not_found
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce
    from vmrunner_localclouds.gce.machines import GceMachine

#: The user of operations that the service itself began.
SYSTEM: Final = "system"
_WAIT: Final = 120.0  # seconds; then an answer comes, done or not


@dataclass(slots=True, eq=False)
class Operation:
    """`shown` is what the API says of it."""

    cloud: LocalGce
    shown: Json

    def finish(self, broken: BrokenOperation | None = None) -> None:
        """End, in success or in this error."""
        if self.shown["status"] == "DONE":
            return
        self.shown.update(status="DONE", progress=100, endTime=timestamps.written(self.cloud.now()))
        if broken is not None:
            self.shown["error"] = {"errors": [{"code": broken.code, "message": broken.message}]}
            self.shown["httpErrorStatusCode"] = broken.status
            self.shown["httpErrorMessage"] = _PHRASES.get(broken.status, "ERROR")


_PHRASES: Final = {400: "BAD REQUEST", 403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT"} | {
    500: "INTERNAL SERVER ERROR",
    503: "SERVICE UNAVAILABLE",
}


def begin(cloud: LocalGce, kind: str, scope: str, target: Json, *, user: str = "") -> Operation:
    """A new operation on a resource in `zones/z`, `regions/r` or `global`, until `finish`."""
    number = secrets.randbelow(9 * 10**18) + 10**17
    tail = f"{secrets.token_hex(7)[:13]}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
    name = f"operation-{int(cloud.now() * 1000)}-{tail}"
    now = timestamps.written(cloud.now())
    shown: Json = {
        "kind": "compute#operation",
        "id": str(number),
        "name": name,
        "operationType": kind,
        "targetLink": target["selfLink"],
        "targetId": target["id"],
        "status": "RUNNING",
        "user": user or f"vmrunner@{cloud.project}.iam.gserviceaccount.com",
        "progress": 0,
        "insertTime": now,
        "startTime": now,
        "selfLink": links.link(f"projects/{cloud.project}/{scope}/operations/{name}"),
    }
    if scope != "global":
        shown[scope.partition("s/")[0]] = links.link(f"projects/{cloud.project}/{scope}")
    cloud.shelf("operations", scope)[name] = shown
    operation = Operation(cloud, shown)
    cloud.operations[shown["selfLink"]] = operation
    return operation


def run(
    cloud: LocalGce,
    request: GceRequest,
    kind: str,
    target: Json,
    *,
    effect: Callable[[], object] = lambda: None,
    broken: BrokenOperation | None = None,
    failed: Callable[[], object] = lambda: None,
) -> Json:
    """Start one that ends `operation_seconds` later, in `effect` or, `broken`, in `failed`; its
    first document."""
    operation = begin(cloud, kind, request.scope, target)
    remember(cloud, request, operation)
    first = _first(operation)

    def end() -> None:
        (effect if broken is None else failed)()
        operation.finish(broken)

    cloud.later(cloud.operation_seconds, end)
    return first


def follow(
    cloud: LocalGce,
    request: GceRequest,
    kind: str,
    target: Json,
    work: Callable[[Callable[..., None]], object],
) -> Json:
    """Start an operation that ends when `work` calls its argument; its first document."""
    operation = begin(cloud, kind, request.scope, target)
    remember(cloud, request, operation)
    first = _first(operation)
    work(operation.finish)
    return first


def _first(operation: Operation) -> Json:
    """The document of an operation that has not begun."""
    first = operation.shown | {"status": "PENDING"}
    del first["startTime"]
    return first


def by_itself(cloud: LocalGce, kind: str, machine: GceMachine, message: str = "") -> None:
    """Record a finished operation that the service or the guest began, without a request."""
    operation = begin(cloud, kind, machine.scope, machine.shown, user=SYSTEM)
    if message:
        operation.shown["statusMessage"] = message
    operation.finish()


# --- the same request again ----------------------------------------------------------------------


def repeated(cloud: LocalGce, request: GceRequest) -> Json | None:
    """The operation that the same `requestId` began before, as it is now; else None. Raises
    `GceRefusal` for an id that is no UUID, or the zero one."""
    request_id = request.query.get("requestId")
    if request_id is None:
        return None
    form = r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"
    if not re.fullmatch(form, request_id, re.IGNORECASE) or uuid.UUID(request_id).int == 0:
        raise invalid("requestId", request_id, "Must be a valid, non-zero UUID.")
    remembered = cloud.tokens.get((request.action, request_id))
    if remembered is None or cloud.now() >= remembered[0] + cloud.token_seconds:
        return None
    return remembered[1].shown


def remember(cloud: LocalGce, request: GceRequest, operation: Operation) -> None:
    if request_id := request.query.get("requestId"):
        cloud.tokens[request.action, request_id] = (cloud.now(), operation)


# --- requests about them -------------------------------------------------------------------------


def pause(cloud: LocalGce, request: GceRequest) -> None:
    """Let time pass until it is done, or two minutes: before the answer, without the lock."""
    end = cloud.now() + _WAIT
    while (now := cloud.now()) < end:
        cloud.settle()
        shown = cloud.find("operations", request.scope, request.path["operation"])
        if shown is None or shown["status"] == "DONE":
            return
        cloud.sleep(min(end, cloud.next_due()) - now)
        if cloud.now() <= now:
            return  # on this clock it does not


def delete(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    shown = _find(cloud, request)
    if shown["status"] != "DONE":
        raise GceRefusal(400, "resourceNotReady", f"{shown['name']} is not done")
    del cloud.shelf("operations", request.scope)[shown["name"]]
    del cloud.operations[shown["selfLink"]]
    return {}


def _find(cloud: LocalGce, request: GceRequest) -> Json:
    name = request.path["operation"]
    shown = cloud.find("operations", request.scope, name)
    if shown is None:
        raise not_found(f"projects/{cloud.project}/{request.scope}/operations/{name}")
    return shown
