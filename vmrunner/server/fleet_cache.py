"""A look at the clouds for the page: one in a while, for all who look at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from vmrunner.services.fleet import CloudView

INTERVAL: Final = 30.0  # seconds between two looks


class CloudLook:
    """Keeps what `look` found last. Safe in threads."""

    def __init__(self, look: Callable[[], CloudView]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._seen: tuple[CloudView, float] | None = None

    def seen(self) -> tuple[CloudView, float] | None:
        """Resources that the clouds show, and the seconds since then. While one looks, the
        others get what is there; None: that is the first look."""
        before, now = self._seen, time.monotonic()
        fresh = before is not None and now - before[1] < INTERVAL
        if not fresh and self._lock.acquire(blocking=False):
            try:
                if self._seen is before:
                    self._seen = self._look(), time.monotonic()
            finally:
                self._lock.release()
        found = self._seen
        return None if found is None else (found[0], time.monotonic() - found[1])
