"""Limit of how many threads do something at once, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLimit:
    """A limit of threads at once. One that leaves gives its turn to the one that has waited
    longest, so that a thread which comes back at once does not pass the others by."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._free = limit
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def place(self, timeout: float) -> Iterator[None]:
        """Have one of the places. Raises TimeoutError after `timeout` seconds without one."""
        self._take(timeout)
        try:
            yield
        finally:
            with self._lock:
                self._give()

    def _take(self, timeout: float) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        came = False
        try:
            came = turn.wait(timeout)
        finally:
            if not came:  # too late, or Ctrl-C
                with self._lock:
                    if turn in self._waiting:
                        self._waiting.remove(turn)
                    else:  # it was given just now
                        self._give()
        if not came:
            raise TimeoutError

    def _give(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
