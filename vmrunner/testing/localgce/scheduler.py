"""Cloud Scheduler, as far as a guard is seen by its job there: jobs are made and read, none is ever
run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vmrunner.testing.localgce import billing
from vmrunner.testing.localgce.api_error import GceRefusal
from vmrunner.testing.localgce.discovery import Json
from vmrunner.testing.localgce.requests import GceRequest

if TYPE_CHECKING:
    from vmrunner.testing.localgce.cloud import LocalGce

_JOBS: Final = re.compile(r"projects/[^/]+/locations/[^/]+/jobs")


def answer(cloud: LocalGce, request: GceRequest) -> Json:
    """Answer what no method of Compute Engine's is for. Raises `GceRefusal`."""
    verb, _, path = request.action.partition(" ")
    name = path.removeprefix("/v1/")
    if verb == "POST" and _JOBS.fullmatch(name):
        job: Json = request.resource | {"state": "ENABLED"}
        cloud.jobs[job["name"]] = job
        return job
    if verb == "GET" and path == billing.PATH:
        return billing.skus(cloud, request)
    if verb == "GET" and name in cloud.jobs:
        return cloud.jobs[name]
    raise GceRefusal(404, "notFound", f"Google has nothing there: {request.action}")
