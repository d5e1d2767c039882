"""Answers that are kept for some seconds, for all who ask the same."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
MOST_KEPT: Final = 256  # answers that are kept


class KeptAnswers(Generic[T]):
    """Keeps each answer for `seconds`. Safe in threads: who asks while it is made waits for it."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the answer that is kept under this key, or make it."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._kept.get(key)
            if kept is not None and self._now() - kept[0] < self._seconds:
                return kept[1]
            answer = make()
            with self._lock:
                self._kept[key] = self._now(), answer
                self._kept.move_to_end(key)
                while len(self._kept) > MOST_KEPT:
                    old, _ = self._kept.popitem(last=False)
                    self._making.pop(old, None)
            return answer
