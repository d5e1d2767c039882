"""Answers that are kept for some seconds, for all who ask the same."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")
MOST_KEPT: Final = 256  # answers that are kept
#: An answer is kept for this many times what it took to make, whatever became of what it tells.
PAUSES: Final = 20


class _Kept(NamedTuple, Generic[T]):
    """`made`: when it was, and `took` so many seconds; `version` of what it was made from."""

    made: float
    took: float
    version: Hashable
    answer: T


class KeptAnswers(Generic[T]):
    """Keeps each answer for `seconds`, or until another `version` of it is asked for. Safe in
    threads: who asks while it is made waits for it."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T], version: Hashable = None) -> T:
        """Return the answer that is kept under this key, or make it."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._kept.get(key)
            began = self._now()
            if kept is not None and began - kept.made < self._lasts(kept, version):
                return kept.answer
            answer = make()
            made = self._now()
            with self._lock:
                self._kept[key] = _Kept(made, made - began, version, answer)
                self._kept.move_to_end(key)
                while len(self._kept) > MOST_KEPT:
                    old, _ = self._kept.popitem(last=False)
                    self._making.pop(old, None)
            return answer

    def _lasts(self, kept: _Kept[T], version: Hashable) -> float:
        """Return for how many seconds this answer does for who asks for that version."""
        whole = self._seconds
        return whole if kept.version == version else min(whole, PAUSES * kept.took)
