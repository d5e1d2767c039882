"""Limits of Compute Engine, by Google's pages and its own document of the API. A line needs a test
that a driver which ignores it fails: `tests/integration/test_vendor_limits.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vmrunner_localclouds.common.vendor_limits import NOT_READ, MinuteCounts, VendorLimit
from vmrunner_localclouds.gce.requests import GceRequest

#: Revision 20261106, as google-api-python-client ships it, and IAM's 20261023.
_COMPUTE: Final = "https://www.googleapis.com/discovery/v1/apis/compute/v1/rest"
_IAM: Final = "https://iam.googleapis.com/$discovery/rest?version=v1"
_LABELS: Final = "https://cloud.google.com/resource-manager/docs/creating-managing-labels"
_TAGS: Final = "https://cloud.google.com/vpc/docs/add-remove-network-tags"
_RUN_TIME: Final = "https://cloud.google.com/compute/docs/instances/limit-vm-runtime"
#: Today's page has the groups and no numbers; an older copy of it (hl=zh-CN) has both.
_QUOTA: Final = "https://cloud.google.com/compute/docs/api-rate-limits"

LIMITS: Final[Mapping[str, VendorLimit]] = {
    "bytes of a metadata value": VendorLimit(256 * 1024, _COMPUTE),
    "bytes of all metadata": VendorLimit(512 * 1024, _COMPUTE),
    "characters of a metadata key": VendorLimit(128, _COMPUTE),
    "characters of a VM's name": VendorLimit(63, _COMPUTE),
    "labels of a resource": VendorLimit(64, _LABELS),
    "characters of a label's key": VendorLimit(63, _LABELS),
    "characters of a label's value": VendorLimit(63, _LABELS),
    "network tags of a VM": VendorLimit(64, _TAGS),
    "characters of a network tag": VendorLimit(63, _TAGS),
    "items of a page": VendorLimit(500, _COMPUTE),
    "seconds of a VM's shortest run": VendorLimit(30, _RUN_TIME, NOT_READ),
    "seconds of a VM's longest run": VendorLimit(120 * 86_400, _RUN_TIME, NOT_READ),
    "bytes of an account's description": VendorLimit(256, _IAM),
}
#: Calls in a minute of the clock, by their group: of one project, in each region and globally. The
#: numbers of `*.wait`, `*.aggregatedList` and serial ports, which count by themselves, were not
#: read.
RATES: Final[Mapping[str, VendorLimit]] = {
    "read": VendorLimit(1500, _QUOTA),
    "list": VendorLimit(1500, _QUOTA),
    "write": VendorLimit(1500, _QUOTA),
}
_UNKNOWN: Final = frozenset({"wait", "aggregatedList", "getSerialPortOutput"})


def group_of(action: str) -> str | None:
    """The group of a method such as `instances.insert`; None: its number was not read."""
    verb = action.rpartition(".")[2]
    if verb in _UNKNOWN:
        return None
    if verb == "list":
        return "list"
    return "read" if verb.startswith(("get", "test")) else "write"


class Throttles:
    """The calls of a project in this minute."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._counts = MinuteCounts(now)
        self.rates = dict(RATES)

    def admit(self, request: GceRequest) -> bool:
        """Count one call. False: there are too many."""
        group = group_of(request.action) if request.method is not None else None
        if group is None:
            return True
        place = request.path.get("zone", "").rpartition("-")[0] or request.path.get("region", "")
        return self._counts.take((place, group), self.rates[group])
