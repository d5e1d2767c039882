"""Faults of requests, on demand.

cloud.faults.fail("pods.create", LOST_ANSWER)            # the next one happens, unheard
cloud.faults.fail("jobs.list", EXPIRED)                  # a token of a page that is too old
cloud.faults.deny("pods/exec.get")                       # from now on
cloud.faults.on_request = lambda request: …              # whatever a test thinks up
"""

from __future__ import annotations

from typing import Final

from vmrunner_localclouds.common.faults import FaultPlan, RequestFate
from vmrunner_localclouds.kube.requests import KubeRequest

INTERNAL: Final = RequestFate(
    "InternalError", 500, "Internal error occurred: etcdserver: no leader"
)
AFTER_ALL: Final = INTERNAL._replace(happens=True)
UNAVAILABLE: Final = RequestFate("ServiceUnavailable", 503, "apiserver not ready")
TIMEOUT: Final = RequestFate(
    "Timeout", 504, "Timeout: request did not complete within the allotted timeout"
)
TIMEOUT_AFTER_ALL: Final = TIMEOUT._replace(happens=True)
THROTTLED: Final = RequestFate("TooManyRequests", 429, "Too many requests, please try again later.")
FORBIDDEN: Final = RequestFate("Forbidden", 403, "forbidden: not permitted")
UNAUTHENTICATED: Final = RequestFate("Unauthorized", 401, "Unauthorized")
EXPIRED: Final = RequestFate(
    "Expired",
    410,
    "The provided continue parameter is too old to display a consistent list result. You must "
    "start a new list without the continue parameter.",
)
CONFLICT: Final = RequestFate(
    "Conflict",
    409,
    "Operation cannot be fulfilled: the object has been modified; please apply your changes to the "
    "latest version and try again",
)
QUOTA: Final = RequestFate(
    "Forbidden",
    403,
    'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
)


class KubeFaults(FaultPlan[KubeRequest, RequestFate]):
    """The plan of one cluster, by resource and verb: `pods.create`."""

    def denial(self, request: KubeRequest) -> RequestFate:
        what = f"{request.resource}.{request.group}" if request.group else request.resource
        where = f' in API group "{request.group}" in the namespace "{request.namespace}"'
        text = f'{what} is forbidden: User "system:admin" cannot {request.verb} resource '
        return FORBIDDEN._replace(message=f'{text}"{what}"{where}')
