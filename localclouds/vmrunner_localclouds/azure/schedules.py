"""Microsoft.ComputeSchedule: a VM is deallocated at a time set before."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import attributes, timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.limits import RETRY_COUNT, RETRY_WINDOW
from vmrunner_localclouds.azure.machines import AzureMachine
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import key

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

MOST_VMS: Final = 100  # VMs in one request
_PAST: Final = 300.0  # seconds that a deadline may lie behind
_ENDED: Final = ("Succeeded", "Failed", "Cancelled", "Blocked")


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledAction:
    """One VM's deallocation at a time."""

    cloud: LocalAzure
    resource: str  # an id, as it was sent
    deadline: float
    kind: str  # of the deadline
    retries: Json
    name: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "PendingScheduling"
    error: Json | None = None
    completed: float | None = None

    @property
    def shown(self) -> Json:
        return {
            "operationId": self.name,
            "resourceId": self.resource,
            "opType": "Deallocate",
            "subscriptionId": self.cloud.subscription,
            "deadline": timestamps.written(self.deadline),
            "deadlineType": self.kind,
            "state": self.state,
            "timezone": "UTC",
            "retryPolicy": self.retries,
            **({"resourceOperationError": self.error} if self.error else {}),
            **({"completedAt": timestamps.written(self.completed)} if self.completed else {}),
        }

    def strike(self) -> None:
        """Deallocate the VM now; a VM that is gone, or cannot be, is an error here."""
        if self.state in _ENDED:
            return
        machine = self.cloud.living.get(key(self.resource))
        if machine is None:
            self._fail("ResourceNotFound", "The VM was not found.")
        elif machine.ephemeral:
            self._fail("OperationNotAllowed", "VMs with ephemeral OS disks are not deallocated.")
        else:
            self.state = "Executing"
            self._deallocate(machine)

    def _deallocate(self, machine: AzureMachine) -> None:
        if machine.state == "deallocated" or machine.deleting:
            self._end("Succeeded")
        else:
            machine.deallocate(lambda: self._end("Succeeded"))

    def _fail(self, code: str, text: str) -> None:
        self.error = {"errorCode": code, "errorDetails": text}
        self._end("Failed")

    def _end(self, state: str) -> None:
        self.state, self.completed = state, self.cloud.now()


def submit(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Plan the deallocation of VMs, each for itself."""
    location = attributes.place({"location": request.path.location}, request.path.kind)
    body = request.body_of("SubmitRequest")
    deadline = _deadline(cloud, body["schedule"])
    identifiers = body["resources"]["ids"]
    if not 1 <= len(identifiers) <= MOST_VMS:
        raise invalid("resources.ids", f"It must have from 1 to {MOST_VMS} ids.")
    retries = body["executionParameters"].get("retryPolicy") or {}
    if (
        retries.get("retryCount", 0) not in RETRY_COUNT
        or retries.get("retryWindowInMinutes", RETRY_WINDOW[0]) not in RETRY_WINDOW
    ):
        text = "RetryPolicy is out of range: RetryCount 0-7, RetryWindowInMinutes 5-120."
        raise ArmRefusal(400, "BadRequest", text, target="executionParameters.retryPolicy")
    kind = body["schedule"]["deadlineType"]
    results = []
    for identifier in identifiers:
        machine = cloud.living.get(key(identifier))
        if machine is None or machine.location != location:
            results.append(_unknown(identifier, f"No such VM in {location}."))
            continue
        action = ScheduledAction(
            cloud=cloud, resource=identifier, deadline=deadline, kind=kind, retries=retries
        )
        cloud.schedules[action.name] = action
        if cloud.schedules_become in _ENDED:
            action.state = cloud.schedules_become
        results.append({"resourceId": identifier, "operation": action.shown})
        if action.state in _ENDED:
            continue
        action.state = cloud.schedules_become
        cloud.later(deadline + cloud.deadline_late - cloud.now(), action.strike)
    return ArmAnswer(
        200,
        {
            "description": "Deallocate Resource Request",
            "type": "VirtualMachines",
            "location": location,
            "results": results,
        },
    )


def status(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    return _each(cloud, request, cancel=False)


def cancel(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Cancel those that have not begun; answer with the state of the rest."""
    return _each(cloud, request, cancel=True)


def _each(cloud: LocalAzure, request: AzureRequest, *, cancel: bool) -> ArmAnswer:
    results = []
    for name in request.body_of("OperationsRequest")["operationIds"]:
        found = cloud.schedules.get(name)
        if found is None:
            results.append(_unknown(name, "No such operation."))
            continue
        if cancel and found.state not in (*_ENDED, "Executing"):
            found.state, found.completed = "Cancelled", cloud.now()
        results.append({"resourceId": found.resource, "operation": found.shown})
    return ArmAnswer(200, {"results": results})


def _unknown(what: str, text: str) -> Json:
    return {"resourceId": what, "errorCode": "ResourceNotFound", "errorDetails": text}


def _deadline(cloud: LocalAzure, schedule: Json) -> float:
    value = schedule.get("deadline") or schedule.get("deadLine") or ""
    if schedule.get("deadlineType", "").lower() != "initiateat":
        text = "Only InitiateAt is supported for this operation."
        raise invalid("schedule.deadlineType", text)
    try:
        deadline = timestamps.read(value)
    except ValueError:
        raise invalid("schedule.deadline", f"'{value}' is no RFC 3339 time.") from None
    if deadline < cloud.now() - _PAST:
        raise ArmRefusal(400, "InvalidDeadline", f"The deadline '{value}' is in the past.")
    return deadline
