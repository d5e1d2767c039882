"""Faults of requests, on demand.

cloud.faults.fail("virtualMachines.put", LOST_ANSWER)   # the next one happens, unheard
cloud.faults.fail("virtualMachines.put", NO_ROOM)       # accepted; its operation ends in an error
cloud.faults.deny("disks.list")                         # from now on
cloud.faults.on_request = lambda request: …             # whatever a test thinks up
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import ADDRESS, DISK, NIC, VM
from vmrunner_localclouds.common.faults import FaultPlan, RequestFate


class FailedLater(NamedTuple):
    """The request is accepted, and its operation ends in this error. `remains`: types of what a
    create made that stays. With `runs` the VM runs all the same."""

    code: str
    message: str
    remains: frozenset[str] = frozenset()
    runs: bool = False


_HALF: Final = frozenset({VM, NIC, ADDRESS})

INTERNAL: Final = RequestFate("InternalServerError", 500, "Encountered internal server error.")
AFTER_ALL: Final = INTERNAL._replace(happens=True)
BAD_GATEWAY: Final = RequestFate("BadGateway", 502, "The gateway did not receive a response.")
UNAVAILABLE: Final = RequestFate("ServerTimeout", 503, "The request timed out.")
THROTTLED: Final = RequestFate(
    "SubscriptionRequestsThrottled",
    429,
    "Number of requests for subscription exceeded the limit. Please try again after a while.",
)
#: Microsoft.Compute's own words, whose code is a quota's elsewhere.
COMPUTE_THROTTLED: Final = RequestFate(
    "OperationNotAllowed",
    429,
    "The server rejected the request because too many requests have been received for this "
    "subscription.",
)
CONFLICT: Final = RequestFate(
    "Conflict",
    409,
    "The request failed due to conflict with a concurrent request. To resolve it, please refer to "
    "https://aka.ms/activitylog to get more details on the conflicting requests.",
)
FORBIDDEN: Final = RequestFate(
    "AuthorizationFailed",
    403,
    "The client does not have authorization to perform the action over the scope, or the scope is "
    "invalid. If access was recently granted, please refresh your credentials.",
)
UNAUTHENTICATED: Final = RequestFate(
    "InvalidAuthenticationToken", 401, "The access token is invalid."
)
EXPIRED: Final = RequestFate(
    "ExpiredAuthenticationToken", 401, "The access token expiry time is in the past."
)
NOT_REGISTERED: Final = RequestFate(
    "MissingSubscriptionRegistration",
    409,
    "The subscription is not registered to use namespace 'Microsoft.Compute'. See "
    "https://aka.ms/rps-not-found for how to register subscriptions.",
)
INVALID: Final = RequestFate("InvalidParameter", 400, "The value of a parameter is invalid.")
QUOTA: Final = RequestFate(
    "OperationNotAllowed",
    409,
    "Operation could not be completed as it results in exceeding approved Total Regional Cores "
    "quota. Additional details - Deployment Model: Resource Manager, Location: westeurope, "
    "Current Limit: 10, Current Usage: 10, Additional Required: 2, (Minimum) New Limit Required: "
    "12.",
)
NO_SKU: Final = RequestFate(
    "SkuNotAvailable",
    409,
    "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
    "Standard_D2s_v5' is currently not available in location 'westeurope'. Please try another size "
    "or deploy to a different location or different zone.",
)

NO_ROOM: Final = FailedLater(
    "AllocationFailed",
    "Allocation failed. We do not have sufficient capacity for the requested VM size in this "
    "region. Read more about improving likelihood of allocation success at "
    "https://aka.ms/allocation-guidance",
    _HALF,
)
NO_ROOM_IN_ZONE: Final = NO_ROOM._replace(
    code="ZonalAllocationFailed",
    message="Allocation failed. We do not have sufficient capacity for the requested VM size in "
    "this zone. Read more about improving likelihood of allocation success at "
    "https://aka.ms/allocation-guidance",
)
OVERCONSTRAINED: Final = NO_ROOM._replace(
    code="OverconstrainedAllocationRequest",
    message="Allocation failed. VM(s) with the following constraints cannot be allocated, because "
    "the condition is too restrictive. Please remove some constraints and try again.",
)
QUOTA_LATER: Final = FailedLater("QuotaExceeded", QUOTA.message)
#: The VM is not made, and its parts stay until a client deletes them.
HALF_MADE: Final = FailedLater(
    "InternalExecutionError",
    "An internal execution error occurred. Please retry later.",
    frozenset({NIC, ADDRESS, DISK}),
)
#: It runs, and the service calls it failed.
UNHEARD_GUEST: Final = FailedLater(
    "OSProvisioningTimedOut",
    "OS Provisioning for VM did not finish in the allotted time. The VM may still finish "
    "provisioning successfully. Please check provisioning state later.",
    frozenset({VM, NIC, ADDRESS, DISK}),
    runs=True,
)

#: The same of one whose disk took too long to be made: it never runs.
CROWDED: Final = UNHEARD_GUEST._replace(runs=False)

#: Another operation came before this one was over.
PREEMPTED: Final = FailedLater(
    "OperationPreempted",
    "Operation execution has been preempted by a more recent operation.",
)

_READS: Final = ("get", "list", "listAll", "instanceView", "resources")
_WRITES: Final = ("put", "patch")


class AzureFaults(FaultPlan[AzureRequest, RequestFate | FailedLater]):
    """The plan of one cloud, by action: `virtualMachines.put`."""

    def denial(self, request: AzureRequest) -> RequestFate:
        return FORBIDDEN._replace(
            message=f"The client 'vmrunner' with object id 'vmrunner' does not have authorization "
            f"to perform action '{permission(request)}' over scope "
            f"'{request.url.partition('?')[0]}' or the scope is invalid. If access was recently "
            "granted, please refresh your credentials."
        )


def permission(request: AzureRequest) -> str:
    """The permission that a request needs, as roles name it."""
    return permission_to(request.path.child, request.action.rpartition(".")[2])


def permission_to(kind: str, what: str) -> str:
    """The permission to do `what` to resources of a type."""
    if what in _READS:
        return f"{kind}/read"
    if what in _WRITES:
        return f"{kind}/write"
    return f"{kind}/delete" if what == "delete" else f"{kind}/{what}/action"
