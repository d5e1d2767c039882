"""Requests to Azure as calls through the port, and what goes wrong with those as what goes wrong
with these."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vmrunner_localclouds.azure import (
    BAD_GATEWAY,
    COMPUTE_THROTTLED,
    FORBIDDEN,
    HALF_MADE,
    INTERNAL,
    NO_ROOM,
    NO_SKU,
    QUOTA,
    QUOTA_LATER,
    THROTTLED,
    UNAVAILABLE,
    AzureRequest,
)

from tests.faults.http_fates import fates, troubles
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.azure.resources import image_name
from vmrunner.providers.fake import Call

LISTINGS: Final = (
    "virtualMachines.list",
    "disks.list",
    "networkInterfaces.list",
    "publicIPAddresses.list",
    "snapshots.list",
    "images.list",
    "definitions.list",
)
#: What a request is through the port. Others go by their own names.
METHODS: Final = MappingProxyType(
    {
        "virtualMachines.put": "create",
        "virtualMachines.get": "look",
        "virtualMachines.deallocate": "park",
        "virtualMachines.start": "wake",
        "virtualMachinesSubmitDeallocate": "arm",
        **dict.fromkeys(LISTINGS, "sweep"),
    }
)
#: What ends something, and its kind.
DELETES: Final = MappingProxyType(
    {
        "virtualMachines.delete": Kind.INSTANCE,
        "disks.delete": Kind.DISK,
        "networkInterfaces.delete": Kind.INTERFACE,
        "publicIPAddresses.delete": Kind.ADDRESS,
        "snapshots.delete": Kind.SNAPSHOT,
        "images.delete": Kind.IMAGE,
        "versions.delete": Kind.IMAGE,
    }
)
FATES: Final = fates(
    internal=INTERNAL, throttled=THROTTLED, no_room=NO_ROOM, quota=QUOTA, denied=FORBIDDEN
)
TROUBLES: Final = troubles(
    INTERNAL, UNAVAILABLE, BAD_GATEWAY, throttled=(THROTTLED, COMPUTE_THROTTLED)
)
MORE: Final = MappingProxyType(
    {
        "create": (NO_ROOM, NO_SKU, QUOTA, QUOTA_LATER, HALF_MADE),
        "arm": (FORBIDDEN,),
    }
)
_QUESTIONS: Final = ("get", "list", "listAll", "virtualMachinesGetOperationStatus")


def asks(action: str) -> bool:
    return action.rpartition(".")[2] in _QUESTIONS


def call_of(request: AzureRequest, scope: Scope) -> Call:
    """As `HttpSide.call_of`."""
    action, name = request.action, request.path.name
    method, about = METHODS.get(action, action), None
    if action == "virtualMachines.put":
        about = name
    elif action in DELETES:
        at = image_name({"id": request.path.child_id, "name": name})
        method, about = "delete", (Ref(scope, DELETES[action], at),)
    elif method == "sweep":
        about = request.query.get("$skiptoken")
    return Call(method, action, scope, about)
