"""Requests to Azure as calls through the port, and what goes wrong with those as what goes wrong
with these."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call, Fault
from vmrunner.testing.localazure import (
    AFTER_ALL,
    BAD_GATEWAY,
    COMPUTE_THROTTLED,
    FORBIDDEN,
    GARBAGE,
    HALF_MADE,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_ROOM,
    NO_SKU,
    QUOTA,
    QUOTA_LATER,
    THROTTLED,
    UNAVAILABLE,
    AzureRequest,
)

LISTINGS: Final = (
    "virtualMachines.list",
    "disks.list",
    "networkInterfaces.list",
    "publicIPAddresses.list",
    "snapshots.list",
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
    }
)
FATES: Final = MappingProxyType(
    {
        Fault.OK: None,
        Fault.LOST_REQUEST: LOST_REQUEST,
        Fault.LOST_RESPONSE: LOST_ANSWER,
        Fault.SERVER_ERROR: INTERNAL,
        Fault.THROTTLE: THROTTLED,
        Fault.NO_CAPACITY: NO_ROOM,
        Fault.QUOTA: QUOTA,
        Fault.CREDENTIALS: FORBIDDEN,
        Fault.PARTIAL_PAGE: INTERNAL,
    }
)
TROUBLES: Final = MappingProxyType(
    {
        "unheard": (LOST_REQUEST,),
        "heard": (LOST_ANSWER, AFTER_ALL, GARBAGE._replace(happens=True)),
        "5xx": (INTERNAL, UNAVAILABLE, BAD_GATEWAY),
        "throttled": (THROTTLED, COMPUTE_THROTTLED),
        "garbage": (GARBAGE,),
    }
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
        method, about = "delete", (Ref(scope, DELETES[action], name.lower()),)
    elif method == "sweep":
        about = request.query.get("$skiptoken")
    return Call(method, action, scope, about)
