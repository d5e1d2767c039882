"""A question that is asked at every turn, by those who only want to know where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from vmrunner.providers.common.call_failed import CallFailed

T = TypeVar("T")

#: After a failure, so long it is not asked again, in seconds.
COOL: Final = 15.0


class CallCooldown(Generic[T]):
    """`ask` raises `CallFailed`, this never."""

    def __init__(self, ask: Callable[[], T], elapsed: Callable[[], float]) -> None:
        self._ask = ask
        self._elapsed = elapsed
        self._failed_at: float | None = None

    def __call__(self) -> T | None:
        """The answer; None when it cannot be told."""
        if self._failed_at is not None and self._elapsed() - self._failed_at < COOL:
            return None
        try:
            answer = self._ask()
        except CallFailed:
            self._failed_at = self._elapsed()
            return None
        self._failed_at = None
        return answer
