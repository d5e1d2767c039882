"""Waiting for a change: its operation alone tells how it ended.

That of a new VM goes on until the guest has reported to Azure. That is not waited for: a place on a
host is all that another offer could change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from vmrunner.errors import Uncertain
from vmrunner.lib.backoff import backoff
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import VM, AzureApi, AzureClient, Begun, part
from vmrunner.providers.azure.resources import code, statuses
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.common.clock import boottime

#: So long it is waited for, in seconds. A place that is refused later than that is seen as a VM
#: that failed.
UNDER_WAY: Final = 120.0
#: Seconds between two looks: more each time, since all creates together have few reads a second.
TURN, LONGEST_TURN = 0.5, 5.0
_PLACED: Final = frozenset({"starting", "running"})


class AzureWaiter:
    """Waiter in one subscription. `elapsed`: seconds that only pass."""

    def __init__(
        self,
        client: AzureClient,
        elapsed: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._elapsed = elapsed
        self._sleep = sleep

    def refused(self, api: AzureApi, begun: Begun, group: str, name: str) -> CallFailed | None:
        """Reason why a VM got no place; None when it has one, or nothing tells yet. Raises
        `Uncertain` when it cannot be told."""
        try:
            self._end(api, begun, group, lambda: self._is_placed(group, name))
        except _Ended as ended:
            return ended.why
        except CallFailed as failed:
            # What was accepted may go on, even if these credentials may not ask about it.
            raise Uncertain(f"{name}: {failed.error}") from failed
        return None

    def done(self, api: AzureApi, begun: Begun) -> None:
        """Wait until it is done. Raises `CallFailed`, or `Uncertain` when it goes on."""
        try:
            if not self._end(api, begun, "", lambda: False):
                raise Uncertain(f"{api.action}: still under way")
        except _Ended as ended:
            raise ended.why from None

    # --- within ---

    def _end(self, api: AzureApi, begun: Begun, where: str, over: Callable[[], bool]) -> bool:
        """True when it is done, or `over`; False when it goes on. Raises `_Ended` when it failed,
        and `CallFailed`."""
        until, turns = self._elapsed() + UNDER_WAY, 0
        while begun.operation and not over():
            answer = self._client.get(begun.operation, action=api.action)
            if answer.get("status") in ("Failed", "Canceled"):
                failure, text = (
                    str(part(answer, "error", key) or "") for key in ("code", "message")
                )
                error = error_codes.refusal(failure, text, 0, action=api.action, where=where)
                raise _Ended(CallFailed(failure, error))
            if answer.get("status") == "Succeeded":
                return True
            if self._elapsed() >= until:
                return False
            self._sleep(backoff(TURN, turns, LONGEST_TURN))
            turns += 1
        return True

    def _is_placed(self, group: str, name: str) -> bool:
        with tolerated(error_codes.MISSING):
            found = self._client(VM, group=group, vm_name=name, expand="instanceView")
            return code(statuses(found), "PowerState") in _PLACED
        return False


class _Ended(Exception):
    """An operation that failed."""

    def __init__(self, why: CallFailed) -> None:
        super().__init__(str(why))
        self.why = why
