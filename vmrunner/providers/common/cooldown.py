"""A question about a cloud that is asked at every turn and must never hold up its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import Final, Generic, TypeVar

from vmrunner.providers.common.call_failed import CallFailed

T = TypeVar("T")

#: After a failure, so long it is not asked again, in seconds.
COOL: Final = 15.0
#: Seconds that a caller waits for an answer. A tick asks, and has all providers to mind.
ANSWER_WAIT: Final = 3.0


class CallCooldown(Generic[T]):
    """Asks by `ask` in a thread of its own, one at a time, and gives what is `known` at once.
    `ask` raises `CallFailed`, this never."""

    def __init__(
        self,
        ask: Callable[[], T],
        cached: Callable[[], T | None],
        elapsed: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._cached = cached
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self._asking: Future[T] | None = None

    def __call__(self) -> T | None:
        """Return the answer; None when it cannot be told, or not yet."""
        answer = self._cached()
        if answer is not None:
            return answer
        with self._lock:
            if self._asking is None:
                failed = self._failed_at
                if failed is not None and self._elapsed() - failed < COOL:
                    return None
                self._asking = Future()
                threading.Thread(
                    target=self._work, args=(self._asking,), name="identity", daemon=True
                ).start()
            asking = self._asking
        with suppress(CallFailed, NotYet):
            return asking.result(ANSWER_WAIT)
        return None

    def _work(self, asking: Future[T]) -> None:
        try:
            answer = self._ask()
        except BaseException as error:  # noqa: BLE001 - the waiting caller raises it
            self._over(self._elapsed())
            asking.set_exception(error)
        else:
            self._over(None)
            asking.set_result(answer)

    def _over(self, failed_at: float | None) -> None:
        with self._lock:
            self._failed_at, self._asking = failed_at, None
