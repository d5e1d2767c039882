"""Requests to Compute Engine as calls through the port, and what goes wrong with those as what goes
wrong with these."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vmrunner_localclouds.gce import (
    BAD_GATEWAY,
    FORBIDDEN,
    INTERNAL,
    QUOTA,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
    UNAVAILABLE,
    GceRequest,
)

from tests.faults.http_fates import fates, troubles
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call

LISTINGS: Final = (
    "instances.aggregatedList",
    "disks.aggregatedList",
    "addresses.aggregatedList",
    "snapshots.list",
    "images.list",
)
#: What a request is through the port. Others go by their own names.
METHODS: Final = MappingProxyType(
    {
        "instances.insert": "create",
        "instances.list": "look",
        **dict.fromkeys(LISTINGS, "sweep"),
    }
)
#: What ends something: its kind, and the parameter that says which.
DELETES: Final = MappingProxyType(
    {
        "instances.delete": (Kind.INSTANCE, "instance"),
        "disks.delete": (Kind.DISK, "disk"),
        "addresses.delete": (Kind.ADDRESS, "address"),
        "globalAddresses.delete": (Kind.ADDRESS, "address"),
        "snapshots.delete": (Kind.SNAPSHOT, "snapshot"),
        "images.delete": (Kind.IMAGE, "image"),
    }
)
FATES: Final = fates(
    internal=INTERNAL, throttled=THROTTLED, no_room=STOCKOUT, quota=QUOTA, denied=FORBIDDEN
)
TROUBLES: Final = troubles(INTERNAL, UNAVAILABLE, BAD_GATEWAY, throttled=(THROTTLED,))
MORE: Final = MappingProxyType(
    {
        "create": (STOCKOUT, STOCKOUT._replace(remains=True), QUOTA, QUOTA_LATER),
    }
)
_QUESTIONS: Final = ("get", "getFromFamily", "list", "aggregatedList", "wait", "testIamPermissions")


def asks(action: str) -> bool:
    return action.rpartition(".")[2] in _QUESTIONS


def call_of(request: GceRequest, default: Scope) -> Call:
    """As `HttpSide.call_of`. `default`: the scope of what has no zone."""
    action = request.action
    scope = default._replace(place=request.path.get("zone", default.place))
    method, about = METHODS.get(action, action), None
    if action == "instances.insert":
        about = request.resource["name"]
    elif action in DELETES:
        kind, parameter = DELETES[action]
        method, about = "delete", (Ref(scope, kind, name_of(kind, request, parameter)),)
    elif method == "sweep":
        about = request.query.get("pageToken")
    return Call(method, action, scope, about)


def name_of(kind: Kind, request: GceRequest, parameter: str) -> str:
    name = request.path[parameter]
    if kind is Kind.ADDRESS:
        return f"{request.scope}/addresses/{name}"
    shelf = {Kind.SNAPSHOT: "global/snapshots/", Kind.IMAGE: "global/images/"}.get(kind, "")
    return shelf + name
