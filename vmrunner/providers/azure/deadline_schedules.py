"""One-shot schedules in Azure's ComputeSchedule: each deallocates one VM past its deadline, with
nothing of vmrunner's running. What is deallocated bills its disk and its address alone.

They bill nothing, carry no tags and are in no list: what a crash leaves armed finds no VM.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from vmrunner.errors import BadOrder
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import CANCEL, SUBMIT, VM, AzureClient, part
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed

#: So long past E it ends the VM, in seconds: the guest's own timer and the reaper come first.
AFTER: Final = 600
#: So many are named in one call, of the hundred that Azure takes.
CANCEL_BATCH: Final = 50
NAMESPACE: Final = uuid.UUID("2f5f0a4e-6d0c-5a70-8a0c-6ac1d5f6f2b7")
#: States of an operation that fires never: another is in its way, for instance.
_NEVER: Final = frozenset({"Blocked", "Cancelled", "Failed"})
#: The most that Azure takes.
_RETRIES: Final = {"retryCount": 7, "retryWindowInMinutes": 120}
#: A VM that is nowhere, by which `check` asks.
_NO_VM: Final = "vmrunner-doctor"
#: Of what is missing, these are not that VM.
_ELSEWHERE: Final = frozenset({error_codes.NO_GROUP, "SubscriptionNotFound"})


def arm(client: AzureClient, options: AzureOptions, ref: Ref, deadline: float) -> Ref | None:
    """Let this VM be deallocated `AFTER` its deadline. None: its disk is on its host, and Azure
    deallocates no such VM. Raises `CallFailed`."""
    if options.location is not None and options.os_disk != "ephemeral":
        try:
            return _submitted(client, options.location, ref, deadline)
        except CallFailed as failed:
            if not isinstance(failed.error, BadOrder):
                raise
    # It may have been born under another configuration.
    vm = client(VM, group=ref.scope.place, vm_name=ref.id)
    if part(vm, "properties", "storageProfile", "osDisk", "diffDiskSettings"):
        return None
    return _submitted(client, str(vm["location"]), ref, deadline)


def check(client: AzureClient, options: AzureOptions, scope: Scope, now: float) -> None:
    """Arm a VM that is not there: that it is not is the answer of an Azure that would arm one that
    is. Raises `CallFailed` where Azure would arm none."""
    ref = Ref(scope, Kind.INSTANCE, _NO_VM)
    try:
        made = _submitted(client, str(options.location), ref, now + 3600)
    except CallFailed as failed:
        if failed.code in _ELSEWHERE or not failed.code.endswith("NotFound"):
            raise
    else:
        disarm(client, [made])


def _submitted(client: AzureClient, location: str, ref: Ref, deadline: float) -> Ref:
    when = datetime.fromtimestamp(int(deadline) + AFTER, UTC)
    body = {
        "schedule": {
            "deadline": f"{when:%Y-%m-%dT%H:%M:%SZ}",
            "timezone": "UTC",
            "deadlineType": "InitiateAt",
        },
        "executionParameters": {"retryPolicy": _RETRIES},
        "resources": {"ids": [_id(ref)]},
        "correlationid": str(uuid.uuid5(NAMESPACE, f"{ref.id}/{int(deadline)}")),
    }
    answer = client(SUBMIT, locationparameter=location, request_body=body)
    result: object = next(iter(part(answer, "results") or ()), None)
    operation, state = (part(result, "operation", key) for key in ("operationId", "state"))
    if operation and state not in _NEVER:
        return Ref(ref.scope, Kind.SCHEDULE, f"{location}/{operation}")
    refused = part(result, "operation", "resourceOperationError") or result
    failure = str(part(refused, "errorCode") or "")
    text = str(part(refused, "errorDetails") or f"its operation is {state or 'not told'}")
    error = error_codes.refusal(failure, text, 0, action=SUBMIT.action, where=location)
    raise CallFailed(failure, error)


def batches(refs: Sequence[Ref]) -> Iterator[list[Ref]]:
    """Yield these so that one call can disarm each part: of one location, and no more than it may
    name."""
    by_location: dict[str, list[Ref]] = {}
    for ref in refs:
        by_location.setdefault(_location(ref), []).append(ref)
    for refs_there in by_location.values():
        yield from (
            refs_there[at : at + CANCEL_BATCH] for at in range(0, len(refs_there), CANCEL_BATCH)
        )


def disarm(client: AzureClient, batch: Sequence[Ref]) -> None:
    """Cancel what `batches` yields. Raises `CallFailed`."""
    operations = [ref.id.partition("/")[2] for ref in batch]
    correlation = uuid.uuid5(NAMESPACE, ",".join(operations))
    body = {"operationIds": operations, "correlationid": str(correlation)}
    # One that is over says so: well.
    client(CANCEL, locationparameter=_location(batch[0]), request_body=body)


def _location(ref: Ref) -> str:
    return ref.id.partition("/")[0]


def _id(ref: Ref) -> str:
    group = f"/subscriptions/{ref.scope.account}/resourceGroups/{ref.scope.place}"
    return f"{group}/providers/Microsoft.Compute/virtualMachines/{ref.id}"
