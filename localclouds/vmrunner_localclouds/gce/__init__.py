"""A local GCE: a real HTTP endpoint on 127.0.0.1 that Google's own client of Compute v1 talks to,
for tests and for trying things out. It needs the extra `gce`.

    with LocalGce() as cloud:
        site = cloud.furnish()                       # an image, a network, a firewall rule
        client = compute_v1.InstancesClient(
            credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.url}
        )

Every request and every answer is held against Google's discovery document: a field that Google does
not know is a 400, as there, and is told in `rejected`; a wrong answer of this cloud's own is a 500,
and leaving the `with` raises. A method that Google lacks is a 404, one that is not written here
a 501.

VMs go through the states of the real ones and are ended at `terminationTime` or `maxRunDuration`;
operations take their time and can end in an error; a clock that obeys (`clock`) is in the `Date` of
every answer; answers fail or never come on demand (`faults`).

With `vms=Vms.open()` a real VM is behind every instance (`vmrunner_localclouds.vms`); `python -m
vmrunner_localclouds.gce` serves one of those.

Every cloud is a project of its own, so many can be alive in one process.
"""

from __future__ import annotations

try:
    import googleapiclient  # noqa: F401 - what the extra brings
except ImportError as missing:
    raise ImportError(f"{missing}; pip install 'vmrunner-localclouds[gce]'") from missing

from vmrunner_localclouds.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate
from vmrunner_localclouds.gce.cloud import LocalGce
from vmrunner_localclouds.gce.faults import (
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
from vmrunner_localclouds.gce.fixtures import GceSite
from vmrunner_localclouds.gce.machines import GceMachine
from vmrunner_localclouds.gce.requests import GceRequest

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
