"""A local Azure: a real HTTP endpoint on 127.0.0.1 that Microsoft's own clients of Resource Manager
talk to, for tests and for trying things out. It needs the extra `azure`.

    with LocalAzure() as cloud:
        site = cloud.furnish()                       # a group, an image, a subnet, a firewall
        client = ComputeManagementClient(credential, cloud.subscription, base_url=cloud.url)

Over plain HTTP the client sends no token unless each call says `enforce_https=False`, or it is made
with another `authentication_policy`.

Every request is held against the types of those clients: a field that they do not know, or a word
that their enums lack, is a 400, as there, and is told in `rejected`. So is every answer; a wrong
one is a 500, and leaving the `with` raises. What is not written here is a 501.

VMs go through the states of the real ones: one whose guest switches itself off is `stopped` and
bills on. A create makes interfaces, addresses and a disk that live by their own `deleteOption`, and
may leave them behind. Operations take their time and can end in an error; a clock that obeys
(`clock`) is in the `Date` of every answer; answers fail or never come on demand (`faults`).

With `vms=Vms.open()` a real VM is behind every one (`vmrunner_localclouds.vms`); `python -m
vmrunner_localclouds.azure` serves one of those.

Every cloud is a subscription of its own, so many can be alive in one process.
"""

from __future__ import annotations

try:
    import azure.mgmt.computeschedule  # noqa: F401 - what the extra brings
except ImportError as missing:
    raise ImportError(f"{missing}; pip install 'vmrunner-localclouds[azure]'") from missing

from vmrunner_localclouds.azure.cloud import LocalAzure
from vmrunner_localclouds.azure.faults import (
    AFTER_ALL,
    BAD_GATEWAY,
    COMPUTE_THROTTLED,
    CONFLICT,
    EXPIRED,
    FORBIDDEN,
    HALF_MADE,
    INTERNAL,
    INVALID,
    NO_ROOM,
    NO_ROOM_IN_ZONE,
    NO_SKU,
    NOT_REGISTERED,
    OVERCONSTRAINED,
    PREEMPTED,
    QUOTA,
    QUOTA_LATER,
    THROTTLED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNHEARD_GUEST,
    AzureFaults,
    FailedLater,
)
from vmrunner_localclouds.azure.fixtures import AzureSite
from vmrunner_localclouds.azure.machines import AzureMachine
from vmrunner_localclouds.azure.prices import price
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate

__all__ = [
    "AFTER_ALL",
    "BAD_GATEWAY",
    "COMPUTE_THROTTLED",
    "CONFLICT",
    "EXPIRED",
    "FORBIDDEN",
    "GARBAGE",
    "HALF_MADE",
    "INTERNAL",
    "INVALID",
    "LOST_ANSWER",
    "LOST_REQUEST",
    "NOT_REGISTERED",
    "NO_ROOM",
    "NO_ROOM_IN_ZONE",
    "NO_SKU",
    "OVERCONSTRAINED",
    "PREEMPTED",
    "QUOTA",
    "QUOTA_LATER",
    "THROTTLED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNHEARD_GUEST",
    "AzureFaults",
    "AzureMachine",
    "AzureRequest",
    "AzureSite",
    "FailedLater",
    "LocalAzure",
    "RequestFate",
    "price",
]
