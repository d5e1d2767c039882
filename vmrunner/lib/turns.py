"""Turns at work whose cost a caller chooses: globs, masks, large bodies, searches. One thread of
this process does such work at a time, and after it nobody does for as long as it took, so that all
others together have more of the interpreter than all such work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Seconds after which a thread that computes lets another go on. Python's own 5 ms are waited for
#: at each of the dozen steps that a request takes between threads.
SWITCH: Final = 0.0005
#: Seconds of work, of one turn or of several, that need no rest yet.
SHORT: Final = 0.005


class CostlyTurns:
    """A lock, and the rest that is owed by those who had it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owed = 0.0

    @contextmanager
    def costly(self) -> Iterator[None]:
        """Do such work, in parts of milliseconds rather than all of it at once. For no thread that
        others wait for."""
        with self._lock:
            began = time.thread_time()
            try:
                yield
            finally:
                self._owed += time.thread_time() - began
                if self._owed > SHORT:  # with the lock: the next one would work all the while
                    owed, self._owed = self._owed, 0.0
                    time.sleep(owed)


costly: Final = CostlyTurns().costly


def often() -> None:
    """Let threads of this process take turns often, where it serves callers."""
    sys.setswitchinterval(SWITCH)
