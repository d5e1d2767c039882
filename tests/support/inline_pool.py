"""A pool that has no threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def prepared(work: Callable[[], T]) -> tuple[Future[T], Callable[[], None]]:
    """The future of a call, and what makes that call."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it belongs to whoever reads the future
            future.set_exception(error)

    return future, call


class Inline:
    """Runs everything at once, in the caller's thread: for tests with a virtual clock."""

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future, call = prepared(work)
        call()
        return future

    def close(self) -> None:
        """There is nothing to let go of."""
