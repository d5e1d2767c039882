"""Parking: a VM that is deallocated, with its disk and its addresses, and started again.

It comes up anew, without its memory: its guest is not set up to hibernate.
"""

from __future__ import annotations

from typing import Final

from vmrunner.errors import BadOrder, NoCapacity, QuotaExceeded, Uncertain
from vmrunner.model import Ref
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import PARK, VM, WAKE, AzureClient, part
from vmrunner.providers.azure.operations import AzureWaiter
from vmrunner.providers.azure.resources import code, statuses
from vmrunner.providers.common.call_failed import CallFailed

_OFF: Final = ("deallocating", "deallocated")
_AWAKE: Final = ("starting", "running")


class AzureParker:
    """Parks and wakes in one subscription. Its methods raise `CallFailed`, `BadOrder` or
    `Uncertain`."""

    def __init__(self, client: AzureClient, waiter: AzureWaiter) -> None:
        self._client = client
        self._waiter = waiter

    def park(self, ref: Ref) -> None:
        """Ask that it be deallocated. A look shows what came of it; so does the same again."""
        if self._state(ref) not in _OFF:
            self._client.begin(PARK, group=ref.scope.place, vm_name=ref.id)

    def wake(self, ref: Ref) -> None:
        """Start it. Its operation is waited for until it has a place, since only that tells that
        there is none."""
        state = self._state(ref)
        if state in _AWAKE:
            return
        if state == "deallocating":
            raise Uncertain(f"{ref.id} is still {state}")
        begun = self._client.begin(WAKE, group=ref.scope.place, vm_name=ref.id)
        failed = self._waiter.refused(WAKE, begun, ref.scope.place, ref.id)
        if failed is not None:
            if isinstance(failed.error, (NoCapacity, QuotaExceeded)):
                raise failed
            raise BadOrder(str(failed)) from failed

    def _state(self, ref: Ref) -> str:
        """Raises `BadOrder` for one that is gone, or goes."""
        try:
            vm = self._client(VM, group=ref.scope.place, vm_name=ref.id, expand="instanceView")
        except CallFailed as failed:
            if failed.code in error_codes.MISSING:
                raise BadOrder(str(failed)) from failed
            raise
        if part(vm, "properties", "provisioningState") == "Deleting":
            raise BadOrder(f"{ref.id} is being deleted")
        return code(statuses(vm), "PowerState")
