"""Time in a local cloud: its clock, and what happens by itself."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
from collections.abc import Callable, Iterator


class Timeline:
    """A timeline without a background: what is due happens at the next look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.skew = 0.0  # this cloud's clock against `clock`, in seconds
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the clock: every change of the cloud's state is made in here, alone."""
        with self.lock:
            yield

    def now(self) -> float:
        """The present time, epoch seconds."""
        return self.clock() + self.skew

    def later(self, seconds: float, effect: Callable[[], object]) -> None:
        """Let `effect` happen in so many seconds: at the first request or `settle` after it."""
        with self.lock:
            if seconds <= 0:
                effect()
            else:
                heapq.heappush(self._due, (self.now() + seconds, next(self._number), effect))

    def next_due(self) -> float:
        """Epoch seconds of the next event; inf where there is none."""
        with self.lock:
            return self._due[0][0] if self._due else math.inf

    def settle(self) -> None:
        """Let all happen that is due."""
        with self.held():
            while self._due and self._due[0][0] <= self.now():
                heapq.heappop(self._due)[2]()
