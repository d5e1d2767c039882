"""Waiting for an operation, which alone tells how a change ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from vmrunner.errors import Uncertain
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.gce.client import OPERATION_WAIT, GceApi, GceClient

#: So long an operation is waited for, and so long each turn lasts at least, in seconds: the server
#: keeps its answer back for as long as it likes, which may be not at all.
UNDER_WAY: Final = 240.0
TURN: Final = 1.0


class OperationWaiter:
    """Waits in one project. `elapsed`: seconds that only pass."""

    def __init__(
        self,
        client: GceClient,
        elapsed: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._elapsed = elapsed
        self._sleep = sleep

    def done(self, operation: Any, api: GceApi, **where: Any) -> Any:
        """The operation when it is done, asked about by `api`. Raises `CallFailed`, or `Uncertain`
        when it goes on."""
        until = self._elapsed() + UNDER_WAY
        while operation.status.name != "DONE":
            began = self._elapsed()
            if began >= until:
                raise Uncertain(f"{operation.name}: still {operation.status.name}")
            operation = self._client(api, operation=operation.name, timeout=OPERATION_WAIT, **where)
            remaining = began + TURN - self._elapsed()
            if operation.status.name != "DONE" and remaining > 0:
                self._sleep(remaining)
        return operation
