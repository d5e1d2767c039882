"""Whether these credentials reach the project, verified: by asking, once, and its one true name.

A project's id is its own for ever and everywhere, so that no other account can stand behind it;
what can change is whether we are let in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.failure import CallFailed
from vmrunner.providers.gce.calls import PROJECT, Calls

#: After a failure, so long nobody is asked again by those who only want to know the scopes.
COOL: Final = 15.0


class Identity:
    """The project, in Google's eyes."""

    def __init__(self, calls: Calls, elapsed: Callable[[], float] = boottime) -> None:
        self._calls = calls
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._project: str | None = None
        self._failed_at: float | None = None

    def project(self) -> str:
        """Its id. Raises `CallFailed`."""
        with self._lock:
            if self._project is None:
                self._project = str(self._calls(PROJECT).name)
            return self._project

    def quietly(self) -> str | None:
        """The same; None when it cannot be told, which is not tried at every question."""
        if self._failed_at is not None and self._elapsed() - self._failed_at < COOL:
            return None
        try:
            project = self.project()
        except CallFailed:
            self._failed_at = self._elapsed()
            return None
        self._failed_at = None
        return project
