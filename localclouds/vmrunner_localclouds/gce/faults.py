"""Faults of requests, on demand.

cloud.faults.fail("instances.insert", LOST_ANSWER)      # the next one happens, unheard
cloud.faults.fail("instances.insert", STOCKOUT)         # accepted; its operation ends in an error
cloud.faults.deny("disks.aggregatedList")               # from now on
cloud.faults.on_request = lambda request: …             # whatever a test thinks up
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vmrunner_localclouds.common.faults import FaultPlan, RequestFate
from vmrunner_localclouds.gce.requests import GceRequest


class BrokenOperation(NamedTuple):
    """The request is accepted, and its operation ends in this error. `remains`: what an insert made
    stays, stopped; else nothing is left of it."""

    code: str
    message: str
    status: int = 503
    remains: bool = False


INTERNAL: Final = RequestFate("backendError", 500, "Backend Error")
AFTER_ALL: Final = INTERNAL._replace(happens=True)
BAD_GATEWAY: Final = RequestFate("backendError", 502, "Bad Gateway")
UNAVAILABLE: Final = RequestFate("backendError", 503, "The service is currently unavailable.")
THROTTLED: Final = RequestFate(
    "rateLimitExceeded",
    403,
    "Quota exceeded for quota group 'default' and limit 'Queries per 100 seconds'.",
)
#: A delete of what is being deleted already, at times.
DELETING: Final = RequestFate(
    "rateLimitExceeded",
    403,
    "Operation rate exceeded for resource 'projects/p/zones/z/instances/i'. Too frequent "
    "operations from the source resource.",
)
FORBIDDEN: Final = RequestFate("forbidden", 403, "Required permission is missing")
NOT_CONFIGURED: Final = RequestFate(
    "accessNotConfigured",
    403,
    "Compute Engine API has not been used in this project before or it is disabled.",
)
UNAUTHENTICATED: Final = RequestFate(
    "authError",
    401,
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
    "or other valid authentication credential.",
)
NOT_FOUND: Final = RequestFate("notFound", 404, "The resource was not found")
INVALID: Final = RequestFate("invalid", 400, "Invalid value for field 'resource'")
QUOTA: Final = RequestFate("quotaExceeded", 403, "Quota 'CPUS' exceeded. Limit: 24.0 in region.")

STOCKOUT: Final = BrokenOperation(
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "The zone does not have enough resources available to fulfill the request. Try a different "
    "zone, or try again later.",
)
QUOTA_LATER: Final = BrokenOperation(
    "QUOTA_EXCEEDED", "Quota 'CPUS' exceeded. Limit: 24.0 in region.", 403
)

UNSUPPORTED: Final = BrokenOperation(
    "UNSUPPORTED_OPERATION", "The state of the instance does not allow this operation.", 400
)

#: "the guest OS must support ACPI S3 suspend": cloud.google.com/compute/docs/instances/
#: suspend-resume-instance, 2026-11. Its code is not published.
DEAF: Final = BrokenOperation("INTERNAL_ERROR", "The guest did not suspend in time.", 500)


class GceFaults(FaultPlan[GceRequest, RequestFate | BrokenOperation]):
    """The plan of one cloud, by method: `instances.insert`."""

    def denial(self, request: GceRequest) -> RequestFate:
        verb = request.action.rpartition(".")[2].replace("insert", "create")
        verb = "list" if verb == "aggregatedList" else verb
        permission = f"compute.{request.action.partition('.')[0]}.{verb}"
        where = f"projects/{request.path.get('project', '')}"
        return FORBIDDEN._replace(message=f"Required '{permission}' permission for '{where}'")
