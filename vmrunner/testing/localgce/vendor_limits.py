"""Limits of Compute Engine, by Google's pages. A line needs a test that a driver which
ignores it fails: `tests/integration/test_vendor_limits.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.testing.common.vendor_limits import CallRate, VendorLimit

_SITE: Final = "https://cloud.google.com/compute/docs/"
_READ: Final = "2026-11"
_QUOTA: Final = "https://cloud.google.com/compute/api-quota"

LIMITS: Final[Mapping[str, VendorLimit]] = {
    "bytes of a metadata value": VendorLimit(256 * 1024, _SITE + "metadata/overview", _READ),
    "labels of a resource": VendorLimit(64, _SITE + "labeling-resources", _READ),
    "network tags of a VM": VendorLimit(
        64, "https://cloud.google.com/vpc/docs/add-remove-network-tags", _READ
    ),
    "bytes of an account's description": VendorLimit(
        256, "https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts", _READ
    ),
}


def _rate(minute: float) -> CallRate:
    return CallRate(VendorLimit(minute, _QUOTA, _READ), VendorLimit(minute / 60, _QUOTA, _READ))


#: By action, of one project in one region: calls in a minute.
RATES: Final[Mapping[str, CallRate]] = {
    "instances.insert": _rate(1500),
    "instances.delete": _rate(1500),
    "instances.get": _rate(1500),
    "instances.list": _rate(1500),
}
