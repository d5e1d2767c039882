"""Changes of an existing VM: delete, start, powerOff, deallocate, an eviction; and its serial
port."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import operations
from vmrunner_localclouds.azure.api_error import ArmRefusal, invalid, not_allowed
from vmrunner_localclouds.azure.faults import NO_ROOM, NO_ROOM_IN_ZONE, FailedLater
from vmrunner_localclouds.azure.machines import AzureMachine
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.reads import group_of
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

#: Where the cloud keeps its VMs' serial output, beside Resource Manager.
BLOBS: Final = "/bootdiagnostics/"


def delete(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Delete a VM. The operation ends when it is gone, or `broken` at once, and then it lives
    on. To delete what is not there is no error."""
    group_of(cloud, request)
    machine = cloud.living.get(key(request.path.id))
    if machine is None:
        return ArmAnswer(204)
    if machine.locked:
        text = f"The scope '{machine.id}' cannot perform delete operation because following "
        text += f"scope(s) are locked: '{machine.id}'. Please remove the lock and try again."
        raise ArmRefusal(409, "ScopeLocked", text)
    if broken is not None:
        return operations.run(cloud, request, machine.location, broken=broken)
    machine.stuck = machine.stuck and not request.flag("forceDeletion")

    def work(then: Callable[[], None]) -> None:
        machine.end(then)

    return operations.follow(cloud, request, machine.location, work)


def start(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    """Start a stopped or deallocated VM, if there is room for it."""
    machine = _settled(cloud, request)
    if broken is None and machine.state == "deallocated" and machine.dry:
        broken = NO_ROOM_IN_ZONE if machine.zone else NO_ROOM
    return _follow(cloud, request, machine, broken, machine.start)


def power_off(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    machine = _settled(cloud, request)
    if machine.state in ("stopped", "deallocated"):
        return operations.run(cloud, request, machine.location, broken=broken)
    return _follow(cloud, request, machine, broken, machine.stop)


def deallocate(cloud: LocalAzure, request: AzureRequest, broken: FailedLater | None) -> ArmAnswer:
    machine = _settled(cloud, request)
    hibernate = request.flag("hibernate")
    if machine.ephemeral:
        text = "This operation is not supported for VMs with ephemeral OS disks: deallocate."
        raise not_allowed(text)
    capable = machine.shown["properties"].get("additionalCapabilities") or {}
    if hibernate and not capable.get("hibernationEnabled"):
        text = f"VM '{machine.name}' cannot be hibernated: hibernation is not enabled for it."
        raise not_allowed(text)
    if hibernate and machine.state != "running":
        raise not_allowed(f"VM '{machine.name}' cannot be hibernated: it is {machine.state}.")
    if machine.state == "deallocated":
        return operations.run(cloud, request, machine.location, broken=broken)

    def work(then: Callable[[], None]) -> None:
        machine.deallocate(then, hibernate=hibernate)

    return _follow(cloud, request, machine, broken, work)


def simulate_eviction(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    machine = _settled(cloud, request)
    if not machine.spot:
        raise not_allowed("Simulate eviction is allowed for Azure Spot Virtual Machines alone.")
    cloud.later(cloud.eviction_seconds, machine.evict)
    return ArmAnswer(204)


def boot_diagnostics(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Answer with the URL of its serial output, which needs no token."""
    group_of(cloud, request)
    machine = cloud.machine(request)
    diagnostics = machine.shown["properties"].get("diagnosticsProfile") or {}
    if not (diagnostics.get("bootDiagnostics") or {}).get("enabled"):
        text = f"Boot diagnostics is not enabled for VM '{machine.name}'."
        raise not_allowed(text)
    minutes = int(request.query.get("sasuriexpirationtimeinminutes", "120"))
    if not 1 <= minutes <= 1440:
        raise invalid("sasUriExpirationTimeInMinutes", "It must be from 1 to 1440.")
    signature = secrets.token_urlsafe(16)
    cloud.signatures[signature] = (machine, cloud.now() + minutes * 60)
    base = f"{cloud.url}{BLOBS}{machine.shown['properties']['vmId']}"
    return ArmAnswer(
        200,
        {
            "consoleScreenshotBlobUri": f"{base}.screenshot.bmp?sig={signature}",
            "serialConsoleLogBlobUri": f"{base}.serialconsole.log?sig={signature}",
        },
    )


def blob(cloud: LocalAzure, request: AzureRequest) -> bytes:
    """The output of a VM's serial port. Raises `ArmRefusal`."""
    machine, until = cloud.signatures.get(request.query.get("sig", ""), (None, 0.0))
    if machine is None or cloud.now() > until:
        text = "Server failed to authenticate the request."
        raise ArmRefusal(403, "AuthenticationFailed", text)
    return machine.output


def _settled(cloud: LocalAzure, request: AzureRequest) -> AzureMachine:
    """A VM in no transition. Raises `ArmRefusal`."""
    group_of(cloud, request)
    machine = cloud.machine(request)
    what = request.action.rpartition(".")[2]
    if machine.deleting:
        text = f"Operation '{what}' is not allowed on VM '{machine.name}' since the VM is marked "
        text += "for deletion. You can only retry the Delete operation (or wait for an ongoing one "
        raise not_allowed(f"{text}to complete).")
    if machine.shown["properties"]["provisioningState"] == "Failed" and machine.never_runs:
        text = f"Operation '{what}' is not allowed on VM '{machine.name}' since the VM is failed. "
        raise not_allowed(f"{text}Please delete it.")
    return machine


def _follow(
    cloud: LocalAzure,
    request: AzureRequest,
    machine: AzureMachine,
    broken: FailedLater | None,
    work: Callable[[Callable[[], None]], object],
) -> ArmAnswer:
    if broken is not None:
        return operations.run(cloud, request, machine.location, broken=broken)
    return operations.follow(cloud, request, machine.location, work)
