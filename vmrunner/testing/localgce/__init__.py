"""A local GCE: a real HTTP endpoint on 127.0.0.1 that Google's own client of Compute v1 talks to,
for tests and for trying things out. It needs the extra `localgce`.

    with LocalGce() as cloud:
        site = cloud.furnish()                       # an image, a network, a firewall rule
        client = compute_v1.InstancesClient(
            credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.url}
        )

Every request and every answer is held against Google's discovery document: a field that Google does
not know is a 400, as there, and is told in `rejected`; a wrong answer of this cloud's own is a 500,
and leaving the `with` raises. A method that Google lacks is a 404, one that nobody has written here
a 501.

VMs go through the states of the real ones and are ended at `terminationTime` or `maxRunDuration`;
operations take their time and can end in an error; a clock that obeys (`clock`) is in the `Date` of
every answer; answers fail or never come on demand (`faults`).

With `vms=Vms.open()` a real VM is behind every instance (`vmrunner.testing.vms`); `python -m
vmrunner.testing.localgce` serves one of those.

Every cloud is a project of its own, so many can be alive in one process.
"""

from __future__ import annotations

from vmrunner.testing.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate
from vmrunner.testing.localgce.cloud import LocalGce
from vmrunner.testing.localgce.faults import (
    AFTER_ALL,
    BAD_GATEWAY,
    DELETING,
    FORBIDDEN,
    INTERNAL,
    INVALID,
    NOT_CONFIGURED,
    NOT_FOUND,
    QUOTA,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    BrokenOperation,
    GceFaults,
)
from vmrunner.testing.localgce.fixtures import GceSite
from vmrunner.testing.localgce.machines import GceMachine
from vmrunner.testing.localgce.requests import GceRequest

__all__ = [
    "AFTER_ALL",
    "BAD_GATEWAY",
    "DELETING",
    "FORBIDDEN",
    "GARBAGE",
    "INTERNAL",
    "INVALID",
    "LOST_ANSWER",
    "LOST_REQUEST",
    "NOT_CONFIGURED",
    "NOT_FOUND",
    "QUOTA",
    "QUOTA_LATER",
    "STOCKOUT",
    "THROTTLED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "BrokenOperation",
    "GceFaults",
    "GceMachine",
    "GceRequest",
    "GceSite",
    "LocalGce",
    "RequestFate",
]
