"""Connections to the VM of a sandbox that are open and idle."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vmrunner.session.ssh import client

KEPT_CONNECTIONS: Final = 4  # connections that are kept open for later


class WarmConnections:
    """Safe in threads. Each is given to one caller at a time. A process that was forked begins
    anew: whatever it said or closed would be its parent's."""

    def __init__(self) -> None:
        self._closed = False
        self._begin([])

    def _begin(self, inherited: list[tuple[str, client.Connection]]) -> None:
        self._process = os.getpid()
        self._inherited = inherited  # never used, nor let go of
        self._lock = threading.Lock()
        self._kept: list[tuple[str, client.Connection]] = []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._process != os.getpid():
            self._begin(self._kept)
        with self._lock:
            yield

    def take(self, instance: str) -> client.Connection | None:
        """Return one to this VM that is open. Those that ended meanwhile are let go."""
        with self._alone():
            dead = [kept for kept in self._kept if not kept[1].is_open]
            self._kept = [kept for kept in self._kept if kept not in dead]
            found = next((kept for kept in self._kept if kept[0] == instance), None)
            if found is not None:
                self._kept.remove(found)
        for _, connection in dead:
            connection.close()
        return None if found is None else found[1]

    def give_back(self, instance: str, connection: client.Connection) -> None:
        """Keep it for later; close it where there are enough."""
        with self._alone():
            if not self._closed and len(self._kept) < KEPT_CONNECTIONS:
                self._kept.append((instance, connection))
                return
        connection.close()

    def close(self) -> None:
        """Close them, and each that comes back from now on."""
        with self._alone():
            self._closed = True
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()
