"""Reach of these credentials to the project, verified: by asking, once, and its one true name.

A project's id is its own for ever and everywhere, so that no other account can stand behind it;
what can change is whether we are let in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cooldown import CallCooldown
from vmrunner.providers.gce.client import PROJECT, GceClient


class GceIdentity:
    """The project, in Google's eyes."""

    def __init__(self, client: GceClient, elapsed: Callable[[], float] = boottime) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._project: str | None = None
        #: The same; None when it cannot be told, which is not tried at every question.
        self.quietly: CallCooldown[str] = CallCooldown(self.project, lambda: self._project, elapsed)

    def project(self) -> str:
        """Return the project's id. Raises `CallFailed`."""
        with self._lock:
            if self._project is None:
                self._project = str(self._client(PROJECT).name)
            return self._project
