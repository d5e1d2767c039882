"""Limits of the real service, each from the page of its vendor's: what a driver that does not know
one meets here as it would there.

`localclouds/tests/test_localazure_limits.py` has a test for each line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner_localclouds.azure.api_error import ArmRefusal

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure
    from vmrunner_localclouds.azure.requests import AzureRequest

_LEARN: Final = "https://learn.microsoft.com/en-us/azure"
_THROTTLING: Final = f"{_LEARN}/virtual-machines/compute-throttling-limits"
_NVME: Final = f"{_LEARN}/virtual-machines/nvme-overview"
_GENERATIONS: Final = f"{_LEARN}/virtual-machines/generation-2"
_EPHEMERAL: Final = f"{_LEARN}/virtual-machines/ephemeral-os-disks"
_CAPTURE: Final = f"{_LEARN}/virtual-machines/capture-image-resource"
_GALLERY: Final = f"{_LEARN}/virtual-machines/azure-compute-gallery#scaling"
_NETWORKS: Final = f"{_LEARN}/virtual-network/virtual-networks-faq"
_QUOTAS: Final = f"{_LEARN}/azure-resource-manager/management/azure-subscription-service-limits"
_PRICES: Final = (
    "https://learn.microsoft.com/en-us/rest/api/cost-management/retail-prices/azure-retail-prices"
)
_SAMPLES: Final = (
    "https://github.com/Azure/azure-computeschedule-dotnet-samples/blob/main/src/AllScenarios/"
    "Program.cs"
)


class VendorLimit(NamedTuple):
    """One limit in its vendor's words, on which page they stand, and when that was read."""

    name: str
    words: str
    page: str
    read: str = "2026-12-01"


LIMITS: Final = (
    VendorLimit("vm-get", "Low Cost Get VM: a VM 12 a minute, bucket of 36", _THROTTLING),
    VendorLimit("vm-list", "High Cost Get VM: a subscription 300 a minute, 900", _THROTTLING),
    VendorLimit("operation-get", "Get Operation: a resource 15 a minute, 45", _THROTTLING),
    VendorLimit("vm-put", "Put VM: a VM 4 a minute, bucket of 12", _THROTTLING),
    VendorLimit("vm-update", "Update VM, start among it: a VM 4 a minute, 12", _THROTTLING),
    VendorLimit("vm-delete", "Delete VM, deallocate too: a VM 4 a minute, 12", _THROTTLING),
    VendorLimit("managed-image", "20 simultaneous deployments of one managed image", _CAPTURE),
    VendorLimit("gallery-version", "a replica for every 50 VMs created concurrently", _GALLERY),
    VendorLimit("controllers", "a size boots what its DiskControllerTypes names", _NVME),
    VendorLimit("generations", "a size boots what its HyperVGenerations names", _GENERATIONS),
    VendorLimit("placements", "an ephemeral disk is where the size has room for it", _EPHEMERAL),
    VendorLimit("subnet-size", "Azure reserves five addresses of a subnet", _NETWORKS),
    VendorLimit("addresses", "public addresses have quotas of a location", _QUOTAS),
    VendorLimit("price-case", "armSkuName eq '…': case counts", _PRICES),
    VendorLimit("retries", "retryCount 0-7, retryWindowInMinutes 5-120", _SAMPLES),
)

#: Of a schedule's retries.
RETRY_COUNT: Final = range(8)
RETRY_WINDOW: Final = range(5, 121)


RESERVED_ADDRESSES: Final = 5  # of a subnet
#: VMs that may boot at once from one managed image.
DEPLOYMENTS: Final = 20
#: … from one replica of a version in a gallery.
REPLICA_DEPLOYMENTS: Final = 50


class Rate(NamedTuple):
    """A bucket of so many requests, and so many more a minute. `whole`: one for the subscription,
    and not one for each resource."""

    burst: float
    minute: float
    operation: str  # as a refusal names it
    whole: bool = False


_RATES: Final = {
    "vm-get": Rate(36, 12, "GetVirtualMachine"),
    "vm-list": Rate(900, 300, "ListVirtualMachines", whole=True),
    "operation-get": Rate(45, 15, "GetOperation"),
    "vm-put": Rate(12, 4, "PutVirtualMachine"),
    "vm-update": Rate(12, 4, "UpdateVirtualMachine"),
    "vm-delete": Rate(12, 4, "DeleteVirtualMachine"),
}
_CHARGED: Final = {
    "virtualMachines.get": "vm-get",
    "virtualMachines.instanceView": "vm-get",
    "virtualMachines.retrieveBootDiagnosticsData": "vm-get",
    "virtualMachines.list": "vm-list",
    "virtualMachines.listAll": "vm-list",
    "operations.get": "operation-get",
    "virtualMachines.put": "vm-put",
    "virtualMachines.patch": "vm-update",
    "virtualMachines.start": "vm-update",
    "virtualMachines.powerOff": "vm-update",
    "virtualMachines.restart": "vm-update",
    "virtualMachines.delete": "vm-delete",
    "virtualMachines.deallocate": "vm-delete",
    "virtualMachines.simulateEviction": "vm-delete",
}
_MANY: Final = 5000


class Throttles:
    """The buckets of one cloud, on its clock."""

    def __init__(self) -> None:
        self.refused: list[str] = []  # actions that were too many
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}  # → tokens, as of when

    def charge(self, cloud: LocalAzure, request: AzureRequest) -> None:
        """Take one request from its bucket. Raises `ArmRefusal` when that is empty."""
        name = _CHARGED.get(request.action)
        if name is None or not cloud.throttles:
            return
        rate, now = _RATES[name], cloud.now()
        key = (name, "" if rate.whole else request.path.id.lower())
        tokens, since = self._buckets.get(key, (rate.burst, now))
        tokens = min(rate.burst, tokens + max(0.0, now - since) * rate.minute / 60)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > _MANY:
            self._drop_full(now)
        if tokens < 1:
            self.refused.append(request.action)
            whose = " for this subscription" if rate.whole else ""
            text = "The request is being throttled as the limit has been reached for operation "
            raise ArmRefusal(429, "TooManyRequests", f"{text}'{rate.operation}'{whose}.")

    def _drop_full(self, now: float) -> None:
        for key, (tokens, since) in list(self._buckets.items()):
            rate = _RATES[key[0]]
            if tokens + (now - since) * rate.minute / 60 >= rate.burst:
                del self._buckets[key]
