"""Limits of EC2, by Amazon's pages. A line needs a test that a driver which ignores it
fails: `tests/integration/test_vendor_limits.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.testing.common.vendor_limits import CallRate, VendorLimit

_GUIDE: Final = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"
_API: Final = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/"
_THROTTLING: Final = "https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html"
_READ: Final = "2026-11"


def _rate(burst: float, refill: float) -> CallRate:
    return CallRate(*(VendorLimit(value, _THROTTLING, _READ) for value in (burst, refill)))


LIMITS: Final[Mapping[str, VendorLimit]] = {
    "user data, bytes": VendorLimit(16384, _GUIDE + "instancedata-add-user-data.html", _READ),
    "tags of a resource": VendorLimit(50, _GUIDE + "Using_Tags.html", _READ),
    "characters of a tag's key": VendorLimit(128, _GUIDE + "Using_Tags.html", _READ),
    "characters of a tag's value": VendorLimit(256, _GUIDE + "Using_Tags.html", _READ),
    "characters of a client token": VendorLimit(64, _API + "API_RunInstances.html", _READ),
    "hops of a metadata answer": VendorLimit(
        64, _API + "API_InstanceMetadataOptionsRequest.html", _READ
    ),
}
#: By action, of one account in one region: calls at once, and a second.
RATES: Final[Mapping[str, CallRate]] = {
    "RunInstances": _rate(5, 2),
    "StartInstances": _rate(5, 2),
    "TerminateInstances": _rate(100, 5),
    "DescribeInstances": _rate(100, 20),
}
