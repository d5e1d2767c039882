"""Parking and waking a VM: it is suspended, and resumed with its memory.

A VM is parked once and woken once in its life. So each has one request id for ever: a twin that was
long on its way stops no VM that was woken meanwhile. A suspension that failed is tried once more,
with an id that follows from the failed one's name, so that it too is one for ever.

Compute Engine suspends by an ACPI signal that the guest must obey; images that vmrunner makes do
(packer/provision/65-buttons.sh). Of one that does not, the operation fails some minutes later.

A suspension clears the cloud's own deadline. Google's documentation has it set again when the VM
runs; and `setScheduling`, which could set it, is for stopped VMs alone. Nothing here rests on
either: the layer is the guard, without which no parked pool is filled.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from vmrunner.errors import BadOrder, NoCapacity, QuotaExceeded, Uncertain
from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.gce import error_codes
from vmrunner.providers.gce.client import GET, RESUME, SUSPEND, WAIT_FOR, GceApi, GceClient
from vmrunner.providers.gce.create_request import NAMESPACE
from vmrunner.providers.gce.operations import OperationWaiter
from vmrunner.providers.gce.resources import SUSPENSION

_NO_ROOM: Final = (NoCapacity, QuotaExceeded)
_DEAF: Final = (
    "the guest must obey the suspend signal, as images do that this vmrunner makes: "
    "vmrunner image build --provider NAME, then image promote"
)
#: States of a VM that is woken already.
_AWAKE: Final = ("PROVISIONING", "STAGING", "RUNNING")


class GceParker:
    """Parks and wakes in one project. Its methods raise `CallFailed`, `BadOrder` or `Uncertain`."""

    def __init__(self, client: GceClient, waiter: OperationWaiter) -> None:
        self._client = client
        self._waiter = waiter

    def park(self, ref: Ref) -> None:
        """Ask for its suspension, which may take minutes. A look shows what came of it; so does the
        same again."""
        if self._state(ref) in SUSPENSION:
            return
        operation = self._ask(SUSPEND, ref)
        failed = error_codes.of_operation(operation, action=SUSPEND.action, where="")
        if failed is not None and not isinstance(failed.error, _NO_ROOM):
            operation = self._ask(SUSPEND, ref, after=str(operation.name))
        _check(operation, SUSPEND, ref, hint=_DEAF)

    def wake(self, ref: Ref) -> None:
        """Resume it. The operation is waited for, since only it tells that a zone has no room."""
        state = self._state(ref)
        if state in _AWAKE:
            return
        if state == "SUSPENDING":
            raise Uncertain(f"{ref.id} is still {state}")
        operation = self._ask(RESUME, ref)
        try:
            operation = self._waiter.done(operation, WAIT_FOR, zone=ref.scope.place)
        except CallFailed as failed:
            raise Uncertain(f"{operation.name}: {failed.error}") from failed
        _check(operation, RESUME, ref)

    # --- within ---

    def _state(self, ref: Ref) -> str:
        return str(self._client(GET, zone=ref.scope.place, instance=ref.id).status)

    def _ask(self, api: GceApi, ref: Ref, after: str = "") -> Any:
        """Operation of the request; when asked again, the first one. `after`: one that failed
        before it."""
        request_id = str(uuid.uuid5(NAMESPACE, f"{ref.id}/{api.action}{after}"))
        return self._client(api, zone=ref.scope.place, instance=ref.id, request_id=request_id)


def _check(operation: Any, api: GceApi, ref: Ref, hint: str = "") -> None:
    """Raise what it ended with. To ask again would only bring it back: that is a refusal."""
    failed = error_codes.of_operation(operation, action=api.action, where=ref.scope.place)
    if failed is not None:
        if isinstance(failed.error, _NO_ROOM):
            raise failed
        raise BadOrder(str(failed), hint=hint) from failed
