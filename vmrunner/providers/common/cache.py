"""Answers that hold for a while, each asked for once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from vmrunner.providers.common.clock import boottime

T = TypeVar("T")


class TtlCache:
    """A cache of answers for a while: what was found is kept; what failed is asked again. One
    question at a time, but that one question may ask another."""

    def __init__(self, now: Callable[[], float] = boottime) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._cached: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, seconds: float, ask: Callable[[], T]) -> T:
        """The answer to `key`, at most so old."""
        with self._lock:
            until, value = self._cached.get(key, (0.0, None))
            if self._now() >= until:
                value = ask()
                self._cached[key] = (self._now() + seconds, value)
            return cast("T", value)
