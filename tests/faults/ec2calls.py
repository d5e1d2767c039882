"""Requests to EC2 as calls through the port, and what goes wrong with those as what goes wrong with
these."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call, Fault
from vmrunner.testing.localcloud import (
    DENIED,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_CAPACITY,
    THROTTLED,
    Request,
    Trouble,
)

#: What a request is through the port. Others go by their own names.
METHODS: Final = MappingProxyType(
    {
        "RunInstances": "create",
        "CreateSchedule": "arm",
        "CreateScheduleGroup": "arm",
        "ModifyInstanceMetadataOptions": "seal",
        "DescribeVolumes": "sweep",
        "DescribeAddresses": "sweep",
        "DescribeNetworkInterfaces": "sweep",
        "DescribeSnapshots": "sweep",
        "DescribeSpotInstanceRequests": "sweep",
        "ListSchedules": "sweep",
    }
)
#: What ends something: its kind, and where the request says which.
DELETES: Final = MappingProxyType(
    {
        "TerminateInstances": (Kind.INSTANCE, "InstanceId"),
        "DeleteVolume": (Kind.DISK, "VolumeId"),
        "DeleteNetworkInterface": (Kind.INTERFACE, "NetworkInterfaceId"),
        "CancelSpotInstanceRequests": (Kind.SPOT_REQUEST, "SpotInstanceRequestId"),
        "DeleteSchedule": (Kind.SCHEDULE, ""),
    }
)
TROUBLES: Final = MappingProxyType(
    {
        Fault.OK: None,
        Fault.LOST_REQUEST: LOST_REQUEST,
        Fault.LOST_RESPONSE: LOST_ANSWER,
        Fault.SERVER_ERROR: INTERNAL,
        Fault.THROTTLE: THROTTLED,
        Fault.NO_CAPACITY: NO_CAPACITY,
        Fault.QUOTA: Trouble("VcpuLimitExceeded", 400, "more than your limit"),
        Fault.CREDENTIALS: DENIED,
        Fault.PARTIAL_PAGE: INTERNAL,
    }
)


def call_of(request: Request, scope: Scope) -> Call:
    """`about` of a listing is its page's token; the rest as `Call` says. `provider`: the action."""
    action = request.action
    method, about = METHODS.get(action, action), None
    if action == "RunInstances":
        about = request.params["ClientToken"]
    elif action == "DescribeInstances":
        listing = request.params.get("Filter.1.Name") == "instance-state-name"
        method, about = "sweep" if listing else "look", request.params.get("NextToken")
    elif action in DELETES and request.params.get("DryRun") != "true":
        kind, key = DELETES[action]
        named = request.all(key) or [request.params[key]] if key else []
        method, about = "delete", tuple(Ref(scope, kind, name) for name in named)
    return Call(method, action, scope, about)
