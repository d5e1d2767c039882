"""Reach of these credentials to the resource group, verified: by asking, once.

A subscription's id is its own for ever and in every tenant, so that no other account can stand
behind it; what can change is whether we are let in, and whether the group is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.model import Scope
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import VMS, AzureClient
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cooldown import CallCooldown

#: Of the subscription: a right in a group alone ends with the group.
GROUP_RIGHT: Final = "Microsoft.Resources/subscriptions/resourceGroups/read"
GROUP_VERSION: Final = "2021-04-01"


def is_gone(client: AzureClient, scope: Scope, failed: CallFailed) -> bool:
    """True if a call failed because its group is not there, and nothing can be in it: Azure deletes
    a group after all that was in it. Rights in a group go with it, so a denial may mean that too.
    The group itself is asked for, and only Azure's own word for its absence counts."""
    if failed.code not in (*error_codes.DENIED, error_codes.NO_GROUP):
        return False
    path = f"/subscriptions/{scope.account}/resourceGroups/{scope.place}"
    try:
        client.get(path, action=GROUP_RIGHT, version=GROUP_VERSION)
    except CallFailed as again:
        return again.code == error_codes.NO_GROUP
    return False


class AzureIdentity:
    """The resource group, in Azure's eyes."""

    def __init__(
        self,
        options: AzureOptions,
        client: AzureClient,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        self._options = options
        self._client = client
        self._lock = threading.Lock()
        self._group: str | None = None
        self._answered: str | None = None  # the same, of a group that told us anything
        #: The same; None when it cannot be told, which is not tried at every question.
        self.quietly: CallCooldown[str] = CallCooldown(self._asked, lambda: self._answered, elapsed)

    def group(self) -> str:
        """Return the group's name, once it let us in. Raises `CallFailed`."""
        with self._lock:
            if self._group is None:
                self._client.page(VMS)
                self._group = self._answered = self._options.group
            return self._group

    def _asked(self) -> str:
        """Return the group's name, once it answered us: credentials that may not list VMs may end
        those whose rows are known; and a group that is missing, or mistyped, hides no other of
        ours."""
        try:
            return self.group()
        except CallFailed as failed:
            if failed.code not in (*error_codes.DENIED, error_codes.NO_GROUP):
                raise
            self._answered = self._options.group
            return self._answered
