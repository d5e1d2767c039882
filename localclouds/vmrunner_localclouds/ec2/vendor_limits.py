"""Limits of EC2 and EventBridge Scheduler, by Amazon's pages and its models of these services. A
line needs a test that a driver which ignores it fails:
`tests/integration/test_vendor_limits.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vmrunner_localclouds.common.vendor_limits import CallRate, RequestBuckets, VendorLimit
from vmrunner_localclouds.ec2.requests import Ec2Request

_GUIDE: Final = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"
#: Amazon's models, as botocore 1.44.8 ships them.
_MODELS: Final = "https://github.com/boto/botocore/blob/develop/botocore/data/"
_EC2: Final = _MODELS + "ec2/2016-11-15/service-2.json"
_SCHEDULER: Final = _MODELS + "scheduler/2021-06-30/service-2.json"
_THROTTLING: Final = "https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html"
_QUOTAS: Final = "https://docs.aws.amazon.com/scheduler/latest/UserGuide/scheduler-quotas.html"

LIMITS: Final[Mapping[str, VendorLimit]] = {
    "user data, bytes": VendorLimit(16384, _GUIDE + "instancedata-add-user-data.html"),
    "tags of a resource": VendorLimit(50, _GUIDE + "Using_Tags.html"),
    # The model says 127 of a key, and this page 128.
    "characters of a tag's key": VendorLimit(128, _GUIDE + "Using_Tags.html"),
    "characters of a tag's value": VendorLimit(256, _GUIDE + "Using_Tags.html"),
    "characters of a client token": VendorLimit(64, _EC2),
    "hops of a metadata answer": VendorLimit(64, _EC2),
    "ids of a termination": VendorLimit(1000, _EC2),
    "items of a page": VendorLimit(1000, _EC2),
    "filters of a request": VendorLimit(50, _GUIDE + "Using_Filtering.html"),
    "values of a filter": VendorLimit(200, _GUIDE + "Using_Filtering.html"),
    "characters of a filter's value": VendorLimit(255, _GUIDE + "Using_Filtering.html"),
    "characters of a schedule's name": VendorLimit(64, _SCHEDULER),
    "characters of a schedule's group": VendorLimit(64, _SCHEDULER),
    "characters of a schedule's expression": VendorLimit(256, _SCHEDULER),
    "schedules of a page": VendorLimit(100, _SCHEDULER),
}


def _rate(burst: float, refill: float, page: str = _THROTTLING) -> CallRate:
    return CallRate(VendorLimit(burst, page), VendorLimit(refill, page))


READING: Final = _rate(100, 20)
#: Of `_LONG_LISTS` without a filter and without pages; a list of ids is neither.
UNBOUNDED: Final = _rate(50, 10)
CHANGING: Final = _rate(50, 5)
#: Actions that have a rate of their own, of all that our drivers, guards and builders use. It is of
#: one account in one region, as all of them.
RATES: Final[Mapping[str, CallRate]] = {
    "RunInstances": _rate(5, 2),
    "StartInstances": _rate(5, 2),
    "TerminateInstances": _rate(100, 5),
    "CreateTags": _rate(100, 10),
    "DeleteTags": _rate(100, 10),
    "CreateSnapshot": _rate(100, 5),
    "CreateVolume": _rate(100, 5),
    "DeleteVolume": _rate(100, 5),
    "DeleteSnapshot": _rate(100, 5),
    "DeleteNetworkInterface": _rate(100, 5),
    "DeregisterImage": _rate(100, 5),
    "ModifyInstanceMetadataOptions": _rate(100, 5),
}
#: Instances, whatever the number of requests that name them.
INSTANCES: Final[Mapping[str, CallRate]] = {
    "RunInstances": _rate(1000, 2),
    "StartInstances": _rate(1000, 2),
    "StopInstances": _rate(1000, 20),
    "TerminateInstances": _rate(1000, 20),
}
#: In the regions that have least. Those of ListSchedules and GetSchedule were not read.
SCHEDULER_RATES: Final[Mapping[str, CallRate]] = {
    "CreateSchedule": _rate(250, 250, _QUOTAS),
    "DeleteSchedule": _rate(250, 250, _QUOTAS),
    "CreateScheduleGroup": _rate(10, 10, _QUOTAS),
    "DeleteScheduleGroup": _rate(10, 10, _QUOTAS),
}
_READS: Final = ("Describe", "List", "Search", "Get")
_LONG_LISTS: Final = frozenset(
    {
        "DescribeInstances",
        "DescribeInstanceStatus",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSnapshots",
        "DescribeSpotInstanceRequests",
        "DescribeVolumes",
    }
)


def rate_of(service: str, action: str, *, bounded: bool = True) -> CallRate | None:
    """The rate of a call; None: it was not read. `bounded`: it has a filter, or pages."""
    if service == "scheduler":
        return SCHEDULER_RATES.get(action)
    if service != "ec2":
        return None
    if action in _LONG_LISTS and not bounded:
        return UNBOUNDED
    return RATES.get(action, READING if action.startswith(_READS) else CHANGING)


class Throttles:
    """The remaining calls of an account in each region."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._buckets = RequestBuckets(now)

    def admit(self, account: str, request: Ec2Request) -> bool:
        """Count one call, and the instances that it names. False: there are too many."""
        bounded = bool({"Filter.1.Name", "MaxResults", "NextToken"} & request.params.keys())
        rate = rate_of(request.service, request.action, bounded=bounded)
        key = (account, request.region, request.service, request.action)
        if rate is not None and not self._buckets.take((*key, bounded), rate):
            return False
        instances = INSTANCES.get(request.action) if request.service == "ec2" else None
        return instances is None or self._buckets.take(key, instances, _instances(request))


def _instances(request: Ec2Request) -> int:
    return len(request.all("InstanceId")) or int(request.params.get("MaxCount", 1))
