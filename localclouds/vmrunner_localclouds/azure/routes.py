"""The handlers of actions, and the checks before them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import (
    actions,
    authorization,
    create,
    galleries,
    operations,
    reads,
    resources,
    schedules,
)
from vmrunner_localclouds.azure.api_error import ArmRefusal
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import TYPES

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

Handler = Callable[["LocalAzure", AzureRequest, FailedLater | None], ArmAnswer]

_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_KINDS: Final = tuple(kind.rpartition("/")[2] for kind in TYPES)
_MADE_ALONE: Final = tuple(kind.rpartition("/")[2] for kind in resources.SHAPES)


def admit(cloud: LocalAzure, request: AzureRequest) -> None:
    """Raises `ArmRefusal` for a subscription that is not there, or a request without a version."""
    if request.path.subscription.lower() != cloud.subscription:
        text = f"The subscription '{request.path.subscription}' could not be found."
        raise ArmRefusal(404, "SubscriptionNotFound", text)
    version = request.query.get("api-version", "")
    if not version:
        text = "The api-version query parameter (?api-version=) is required for all requests."
        raise ArmRefusal(400, "MissingApiVersionParameter", text)
    if not _VERSION.fullmatch(version):
        text = f"The api-version '{version}' is invalid. The api-version must be in the format "
        raise ArmRefusal(400, "InvalidApiVersionParameter", f"{text}'YYYY-MM-DD'.")
    if request.verb == "DELETE":
        authorization.check_locks(cloud, request)
    if request.path.location.lower() in cloud.down:
        text = f"Cannot reach '{request.path.location}'."
        raise ArmRefusal(503, "ServiceUnavailable", text)


def find(request: AzureRequest) -> Handler:
    """Find the function of an action. Raises `ArmRefusal` where there is none."""
    found = KNOWN.get(request.action)
    if found is None:
        text = f"not in this cloud: {request.action} ({request.path.kind})"
        raise ArmRefusal(501, "NotImplemented", text)
    return found


KNOWN: Final[dict[str, Handler]] = {
    **{f"{kind}.get": reads.get for kind in _KINDS},
    **{f"{kind}.{which}": reads.listed for kind in _KINDS for which in ("list", "listAll")},
    **{f"{kind}.put": resources.put for kind in _MADE_ALONE},
    **{f"{kind}.patch": resources.patch for kind in _MADE_ALONE},
    **{f"{kind}.delete": resources.delete for kind in _MADE_ALONE},
    "virtualMachines.put": create.put,
    "virtualMachines.patch": create.patch,
    "virtualMachines.delete": actions.delete,
    "virtualMachines.start": actions.start,
    "virtualMachines.powerOff": actions.power_off,
    "virtualMachines.deallocate": actions.deallocate,
    "virtualMachines.simulateEviction": actions.simulate_eviction,
    "virtualMachines.retrieveBootDiagnosticsData": actions.boot_diagnostics,
    "virtualMachines.instanceView": reads.instance_view,
    "virtualNetworks.subnets": reads.subnets,
    "subnets.get": reads.subnets,
    **{f"{kind}.get": reads.child for kind in ("definitions", "versions")},
    **{f"{kind}.list": reads.children for kind in ("definitions", "versions")},
    **{f"{kind}.put": galleries.put for kind in galleries.KINDS},
    **{f"{kind}.patch": galleries.patch for kind in galleries.KINDS},
    **{f"{kind}.delete": galleries.delete for kind in galleries.KINDS},
    "resourceGroups.get": reads.group,
    "resourceGroups.listAll": reads.groups,
    "resourceGroups.resources": reads.resources,
    "tags.patch": resources.merge_tags,
    "permissions.list": authorization.permissions,
    "locks.list": authorization.locks,
    "sites.get": reads.get,
    "skus.listAll": reads.sizes,
    "usages.list": reads.usages,
    "operations.get": operations.get,
    "virtualMachinesSubmitDeallocate": schedules.submit,
    "virtualMachinesGetOperationStatus": schedules.status,
    "virtualMachinesCancelOperations": schedules.cancel,
}
