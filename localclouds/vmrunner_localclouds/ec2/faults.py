"""Faults of requests, on demand.

cloud.faults.fail("RunInstances", LOST_ANSWER)          # the next one happens, unheard
cloud.faults.deny("DescribeVolumes")                    # from now on
cloud.faults.on_request = lambda request: …             # whatever a test thinks up
"""

from __future__ import annotations

from typing import Final

from vmrunner_localclouds.common.faults import FaultPlan, RequestFate
from vmrunner_localclouds.ec2.requests import Ec2Request

INTERNAL: Final = RequestFate("InternalError", 500, "An internal error has occurred")
AFTER_ALL: Final = INTERNAL._replace(happens=True)
UNAVAILABLE: Final = RequestFate("Unavailable", 503, "The service is unavailable")
THROTTLED: Final = RequestFate("RequestLimitExceeded", 503, "Request limit exceeded.")
TOO_MANY: Final = RequestFate("ThrottlingException", 429, "Rate exceeded")  # of Scheduler
NO_CAPACITY: Final = RequestFate(
    "InsufficientInstanceCapacity", 500, "There is no capacity for what was asked"
)
DENIED: Final = RequestFate(
    "UnauthorizedOperation", 403, "You are not authorized to perform this operation."
)

#: Services that do not say UnauthorizedOperation.
_DENIED_ELSEWHERE: Final = DENIED._replace(code="AccessDenied")


class Ec2Faults(FaultPlan[Ec2Request, RequestFate]):
    """The plan of one cloud."""

    def denial(self, request: Ec2Request) -> RequestFate:
        denied = DENIED if request.service == "ec2" else _DENIED_ELSEWHERE
        return denied._replace(message=f"{DENIED.message} {request.action}")
