"""The right to delete, known before anything is created: Azure tells what these credentials may do
in a group, and which locks hold there, under which nothing can be deleted.

Credentials that may create and not delete leave bills behind. A denial stops launching, never
reaping.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import DELETE, AzureClient, last, part
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.permissions import GRANTED, REFUSED, Right

ACTION: Final = DELETE.action
FIX: Final = f"allow {ACTION} to these credentials"
_RIGHTS: Final = "Microsoft.Authorization/permissions/read"
_VERSION: Final = "2022-04-01"
LOCKS_RIGHT: Final = "Microsoft.Authorization/locks/read"
_LOCKS_VERSION: Final = "2020-05-01"
#: Where a lock is that holds for all of a group: on that, or on its subscription.
_WIDE: Final = re.compile(
    r"/subscriptions/[^/]+(/resourceGroups/[^/]+)?/providers/Microsoft.Authorization/locks/[^/]+",
    re.IGNORECASE,
)


class AzurePermissions:
    """The knowledge of the right to delete. Thread-safe."""

    def __init__(
        self, options: AzureOptions, client: AzureClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._options = options
        self._client = client
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._right = Right(may=None, why="not asked yet")
        self._until = self._asked_at = 0.0

    def doubt(self, failed: CallFailed) -> None:
        """Ask anew before the next launch, but not at once again: a delete was refused."""
        if failed.code in {*error_codes.DENIED, error_codes.LOCKED}:
            with self._lock:
                self._until = min(self._until, self._asked_at + REFUSED)

    def demand(self) -> None:
        """Raises `CredentialsRefused` when it is known that we may not."""
        with self._lock:
            if self._elapsed() >= self._until:
                self._right, self._asked_at = self.ask(), self._elapsed()
                self._until = self._asked_at + (REFUSED if self._right.may is False else GRANTED)
            right = self._right
        right.demand(self._options.name, "delete", FIX)

    def ask(self) -> Right:
        """Ask for the right in the group. Raises nothing."""
        try:
            if not allows(self._listed("permissions", _RIGHTS, _VERSION), ACTION):
                return Right(may=False, why=f"{ACTION} is denied")
            for lock in self._listed("locks", LOCKS_RIGHT, _LOCKS_VERSION):
                if _WIDE.fullmatch(where := str(lock.get("id"))):
                    why = f"lock {last(where)} on {self._options.group} forbids deletes there"
                    return Right(may=False, why=why, fix=f"az lock delete --ids {where}")
        except CallFailed as failed:
            return Right(may=None, why=str(failed))
        return Right(may=True, why=f"{ACTION} is allowed")

    def lacking(self, actions: Iterable[str]) -> list[str]:
        """Actions among these that are denied in the group. Raises `CallFailed`."""
        rules = self._listed("permissions", _RIGHTS, _VERSION)
        return [action for action in actions if not allows(rules, action)]

    def _listed(self, kind: str, action: str, version: str) -> Sequence[Mapping[str, Any]]:
        path = self._options.id(f"Microsoft.Authorization/{kind}")
        answer = self._client.get(path, action=action, version=version)
        return part(answer, "value") or ()


def allows(rules: Iterable[Mapping[str, Any]], action: str) -> bool:
    """True if one of these roles' rules allows it: what a rule leaves out another may give."""
    return any(
        _matches(rule.get("actions") or (), action)
        and not _matches(rule.get("notActions") or (), action)
        for rule in rules
    )


def _matches(patterns: Iterable[str], action: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE)
        for pattern in patterns
    )
