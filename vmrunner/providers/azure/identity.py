"""Reach of these credentials to the resource group, verified: by asking, once.

A subscription's id is its own for ever and in every tenant, so that no other account can stand
behind it; what can change is whether we are let in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import VMS, AzureClient
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cooldown import CallCooldown


class AzureIdentity:
    """The resource group, in Azure's eyes."""

    def __init__(
        self,
        options: AzureOptions,
        calls: AzureClient,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        self._options = options
        self._calls = calls
        self._lock = threading.Lock()
        self._group: str | None = None
        #: The same; None when it cannot be told, which is not tried at every question.
        self.quietly: CallCooldown[str] = CallCooldown(self._asked, lambda: self._group, elapsed)

    def group(self) -> str:
        """Return the group's name, once it let us in. Raises `CallFailed`."""
        with self._lock:
            if self._group is None:
                self._calls.page(VMS)
                self._group = self._options.group
            return self._group

    def _asked(self) -> str:
        """Return the group's name, once it answered us: who may not list VMs may end those whose
        rows are known."""
        try:
            return self.group()
        except CallFailed as failed:
            if failed.code not in error_codes.DENIED:
                raise
            return self._options.group
