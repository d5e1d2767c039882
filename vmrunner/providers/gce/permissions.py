"""The right to delete, known before more is created.

Credentials that may insert and not delete leave bills behind. Compute Engine tells of rights only
on a VM that exists; so where none of ours does, the first new one is asked about, and a denial
stops launching, never reaping.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.permissions import GRANTED, REFUSED, Right
from vmrunner.providers.gce.client import MAY, GceClient

ACTION: Final = "compute.instances.delete"


class GcePermissions:
    """The knowledge of the right to delete. Thread-safe."""

    def __init__(
        self, name: str, client: GceClient, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._name = name
        self._client = client
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._right = Right(may=None, why="no VM of ours was there to be asked about")
        self._until = 0.0
        self._asking = False  # a burst of newborns has one that is asked
        self._told_by: Ref | None = None  # the VM that was asked last

    def demand(self) -> None:
        """Raises `CredentialsRefused` when it is known that we may not. A denial that is old is
        asked about anew, of the VM that may not be deleted."""
        with self._lock:
            old = self._right.may is False and self._elapsed() >= self._until
            witness = self._told_by
        if old:
            self.learn(self.ask(witness) if witness else Right(may=None, why="it is long ago"))
        self._right.demand(self._name, "delete", f"allow {ACTION} to these credentials")

    def born(self, ref: Ref) -> None:
        """A VM of ours exists: it tells, unless something did a while ago, or is about to."""
        with self._lock:
            answered = self._right.may is not None and self._elapsed() < self._until
            if answered or self._asking:
                return
            self._asking = True
        try:
            self.learn(self.ask(ref))
            self._told_by = ref
        finally:
            self._asking = False

    def ask(self, ref: Ref) -> Right:
        """Ask for the right by the VM's own policy. Raises nothing."""
        try:
            answer = self._client(
                MAY,
                zone=ref.scope.place,
                resource=ref.id,
                test_permissions_request_resource={"permissions": [ACTION]},
            )
        except CallFailed as failed:
            return Right(may=None, why=str(failed))
        may = ACTION in list(answer.permissions)
        return Right(may=may, why=f"{ACTION} is {'allowed' if may else 'denied'}")

    def learn(self, right: Right) -> None:
        with self._lock:
            self._right = right
            self._until = self._elapsed() + (REFUSED if right.may is False else GRANTED)
