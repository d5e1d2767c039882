"""Calls that may take long, off the tick's thread: sent in one tick, their answers read in a later
one. A slot makes one call at a time to one provider, so that a slow cloud costs one thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, Generic, Protocol, TypeVar

from vmrunner.errors import Throttled

K = TypeVar("K")
T = TypeVar("T")

#: Threads that a pool without a bound has from the start.
RESERVED: Final = 3
#: A call that has not come back by then is not waited for: the slot takes the next one.
GIVE_UP: Final = 300.0


class WorkerPool(Protocol):
    """A pool that runs a call elsewhere."""

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run it some time."""

    def close(self) -> None:
        """End the pool: nothing more will come. What runs goes on."""


class DaemonThreadPool:
    """A few daemon threads, made when they are needed: one that hangs in a driver never keeps the
    process from ending, as the standard executor's would. `size`: None where no call may wait for
    those that hang; such a pool has `RESERVED` threads from the start, for the hour in which the
    host gives no more."""

    def __init__(self, name: str, size: int | None) -> None:
        self._name = name
        self._size = size
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        for _ in range(RESERVED if size is None else 0):
            with contextlib.suppress(RuntimeError):  # those that it has begin what is submitted
                self._start()
                self._idle += 1

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run it in a thread of the pool. Where no other can be started, it waits for one that is
        there; where there is none at all, the call is `Throttled`: nothing of it happened."""
        future: Future[T] = Future()
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._size is None or self._threads < self._size:
                try:
                    self._start()
                except RuntimeError as error:
                    if not self._threads:
                        future.set_exception(Throttled(f"{self._name}: {error}"))
                        return future
                    self._idle -= 1  # the next free thread takes it
        self._work.put((future, work))
        return future

    def _start(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self._threads += 1

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        with self._lock:
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it belongs to the reader
                    future.set_exception(error)
            with self._lock:
                self._idle += 1


class CallSlots(Generic[K, T]):
    """A slot for each of what is called. `pool` gives what runs the calls to one."""

    def __init__(
        self, pool: Callable[[K], WorkerPool], now: Callable[[], float], done: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._now = now
        self._done = done
        self._all: dict[K, CallSlot[T]] = {}

    def __getitem__(self, key: K) -> CallSlot[T]:
        """Made when it is first asked for."""
        if key not in self._all:
            self._all[key] = CallSlot(self._pool(key), self._now, self._done)
        return self._all[key]

    def finished(self) -> Iterator[tuple[K, Future[T]]]:
        """Yield each call that has come back, once, with the key that it was made for."""
        for key, slot in self._all.items():
            call = slot.take()
            if call is not None:
                yield key, call

    @property
    def free(self) -> bool:
        """True if no call is on its way."""
        return all(slot.free for slot in self._all.values())


class CallSlot(Generic[T]):
    """A slot for one call at a time. `now` is a monotonic clock, in seconds."""

    def __init__(
        self, pool: WorkerPool, now: Callable[[], float], done: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._now = now
        self._done = done
        self._call: Future[T] | None = None
        self._sent = 0.0

    @property
    def free(self) -> bool:
        """True if a call may be sent."""
        return self._call is None

    def send(self, work: Callable[[], T]) -> None:
        """Make the call; `done` is called when its answer is there."""
        assert self._call is None
        self._sent = self._now()
        self._call = self._pool.submit(work)
        self._call.add_done_callback(lambda _: self._done())

    def take(self) -> Future[T] | None:
        """The finished call, if there is one: `result()` returns its answer or raises its error.
        A call that never comes back counts as one that timed out."""
        call = self._call
        if call is None:
            return None
        if not call.done():
            if self._now() - self._sent < GIVE_UP:
                return None
            call = Future()
            call.set_exception(TimeoutError(f"no answer within {int(GIVE_UP)} s"))
        self._call = None
        return call
