"""Requests to EC2 as calls through the port, and what goes wrong with those as what goes wrong with
these."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vmrunner_localclouds.ec2 import (
    DENIED,
    INTERNAL,
    NO_CAPACITY,
    THROTTLED,
    UNAVAILABLE,
    Ec2Request,
    RequestFate,
)

from tests.faults.http_fates import fates, troubles
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call

#: What a request is through the port. Others go by their own names.
METHODS: Final = MappingProxyType(
    {
        "RunInstances": "create",
        "CreateSchedule": "arm",
        "CreateScheduleGroup": "arm",
        "ModifyInstanceMetadataOptions": "seal",
        "StopInstances": "park",
        "StartInstances": "wake",
        "DescribeVolumes": "sweep",
        "DescribeAddresses": "sweep",
        "DescribeNetworkInterfaces": "sweep",
        "DescribeSnapshots": "sweep",
        "DescribeSpotInstanceRequests": "sweep",
        "DescribeKeyPairs": "sweep",
        "ListSchedules": "sweep",
    }
)
#: What ends something: its kind, and where the request says which.
DELETES: Final = MappingProxyType(
    {
        "TerminateInstances": (Kind.INSTANCE, "InstanceId"),
        "DeleteVolume": (Kind.DISK, "VolumeId"),
        "DeregisterImage": (Kind.IMAGE, "ImageId"),
        "DeleteSnapshot": (Kind.SNAPSHOT, "SnapshotId"),
        "DeleteNetworkInterface": (Kind.INTERFACE, "NetworkInterfaceId"),
        "CancelSpotInstanceRequests": (Kind.SPOT_REQUEST, "SpotInstanceRequestId"),
        "DeleteSchedule": (Kind.SCHEDULE, ""),
    }
)
LISTINGS: Final = (
    "DescribeInstances",
    "DescribeVolumes",
    "DescribeAddresses",
    "DescribeNetworkInterfaces",
    "DescribeSnapshots",
    "DescribeSpotInstanceRequests",
    "DescribeKeyPairs",
    "DescribeImages",
    "ListSchedules",
)
UNAUTHORIZED: Final = RequestFate("UnauthorizedOperation", 403, "You are not authorized")
_QUOTA: Final = RequestFate("VcpuLimitExceeded", 400, "more than your limit")
FATES: Final = fates(
    internal=INTERNAL, throttled=THROTTLED, no_room=NO_CAPACITY, quota=_QUOTA, denied=DENIED
)
TROUBLES: Final = troubles(INTERNAL, UNAVAILABLE, throttled=(THROTTLED,))
MORE: Final = MappingProxyType({"create": (NO_CAPACITY, _QUOTA), "arm": (DENIED,)})


def asks(action: str) -> bool:
    return action.startswith(("Describe", "Get", "List"))


def call_of(request: Ec2Request, scope: Scope) -> Call:
    """As `HttpSide.call_of`."""
    action = request.action
    method, about = METHODS.get(action, action), None
    if action == "RunInstances":
        about = request.params["ClientToken"]
    elif action == "DescribeInstances":
        listing = request.params.get("Filter.1.Name") == "instance-state-name"
        method, about = "sweep" if listing else "look", request.params.get("NextToken")
    elif action == "DescribeSecurityGroups" and "GroupId.1" not in request.params:
        method = "sweep"  # a launch asks for its own by their ids
    elif action in DELETES and request.params.get("DryRun") != "true":
        kind, key = DELETES[action]
        named = request.all(key) or [request.params[key]] if key else []
        method, about = "delete", tuple(Ref(scope, kind, name) for name in named)
    return Call(method, action, scope, about)
