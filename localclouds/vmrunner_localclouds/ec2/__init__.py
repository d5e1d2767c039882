"""A local EC2: a real HTTP endpoint on 127.0.0.1 that any AWS SDK talks to, for tests and for
trying things out. It needs the extra `ec2`.

    with LocalCloud() as cloud:
        site = cloud.furnish("eu-west-1")             # an image, subnets, a security group
        client = boto3.client("ec2", endpoint_url=cloud.url, …)

It is moto's server, with what moto lacks added round it: client tokens that are idempotent, and
mismatch; instances that are pending before they run, stopping before they are stopped and shutting
down before they are terminated; newborns that are not visible yet; pages; termination and stop
protection; one-shot schedules that fire; tags on network interfaces; the mappings of an image; spot
requests, and the role that they need; types that a region lacks; metadata options that take their
time; empty pools, quotas, denied actions; zones that are disrupted (`outages`); answers that fail
or never come, on demand (`faults`); a clock that obeys (`clock`) and is in every answer's `Date`.

With `LocalCloud(vms=Vms.open())` a real VM is behind every instance (`vmrunner_localclouds.vms`);
`python -m vmrunner_localclouds.ec2` is that, ready to use.

Every cloud is an account of its own, so many can be alive in one process.
"""

from __future__ import annotations

try:
    import moto.moto_server.werkzeug_app  # noqa: F401 - what the extra brings
except ImportError as missing:
    raise ImportError(f"{missing}; pip install 'vmrunner-localclouds[ec2]'") from missing

from vmrunner_localclouds.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate
from vmrunner_localclouds.ec2.cloud import LocalCloud
from vmrunner_localclouds.ec2.faults import (
    AFTER_ALL,
    DENIED,
    INTERNAL,
    NO_CAPACITY,
    THROTTLED,
    UNAVAILABLE,
    Ec2Faults,
)
from vmrunner_localclouds.ec2.fixtures import Ec2Site, Mapping
from vmrunner_localclouds.ec2.machines import Ec2Machine
from vmrunner_localclouds.ec2.requests import Ec2Request

__all__ = [
    "AFTER_ALL",
    "DENIED",
    "GARBAGE",
    "INTERNAL",
    "LOST_ANSWER",
    "LOST_REQUEST",
    "NO_CAPACITY",
    "THROTTLED",
    "UNAVAILABLE",
    "Ec2Faults",
    "Ec2Machine",
    "Ec2Request",
    "Ec2Site",
    "LocalCloud",
    "Mapping",
    "RequestFate",
]
