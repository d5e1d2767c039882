"""The right to kill, before anything is born: Azure tells what these credentials may in a group.

Who may create and not delete leaves bills behind. A denial stops launching, never reaping.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from vmrunner.errors import CredentialsRefused
from vmrunner.providers.azure.client import DELETE, AzureClient
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.permissions import GRANTED, REFUSED, Right

ACTION: Final = DELETE.action
_RIGHTS: Final = "Microsoft.Authorization/permissions/read"
_VERSION: Final = "2022-04-01"


class AzurePermissions:
    """The knowledge of the right to delete. Thread-safe."""

    def __init__(
        self, options: AzureOptions, calls: AzureClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._calls = calls
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._right = Right(may=None, why="nobody asked")
        self._until = 0.0

    def demand(self) -> None:
        """Raises `CredentialsRefused` when it is known that we may not."""
        with self._lock:
            if self._elapsed() >= self._until:
                self._right = self.ask()
                self._until = self._elapsed() + (REFUSED if self._right.may is False else GRANTED)
            right = self._right
        if right.may is False:
            raise CredentialsRefused(
                f"{self._options.name} may not delete what it would launch: {right.why}",
                hint=f"allow {ACTION} to these credentials; nothing is launched before",
            )

    def ask(self) -> Right:
        """Ask for the right in the group. Raises nothing."""
        path = self._options.id("Microsoft.Authorization/permissions")
        try:
            told = self._calls.get(path, action=_RIGHTS, version=_VERSION)
        except CallFailed as failed:
            return Right(may=None, why=str(failed))
        rules = told.get("value") or ()
        may = allows(rules, ACTION)
        return Right(may=may, why=f"{ACTION} is {'allowed' if may else 'denied'}")


def allows(rules: Iterable[Mapping[str, Any]], action: str) -> bool:
    """True if one of these roles' rules allows it: what a rule leaves out another may give."""
    return any(
        _matches(rule.get("actions") or (), action)
        and not _matches(rule.get("notActions") or (), action)
        for rule in rules
    )


def _matches(patterns: Iterable[str], action: str) -> bool:
    return any(
        re.fullmatch(re.escape(one).replace(r"\*", ".*"), action, re.IGNORECASE) for one in patterns
    )
