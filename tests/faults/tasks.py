"""What runs side by side in a fault world, one at a time: sessions, and where a world says so also
calls to a cloud and passes of a reaper."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar

from tests.support.inline_pool import Inline, prepared
from vmrunner.providers.fake import Clock

if TYPE_CHECKING:
    from tests.faults.node import Node
    from tests.faults.world import World

T = TypeVar("T")


class Crash(BaseException):
    """The process is dead: no handler of ours may catch it."""


class Owner(Protocol):
    """The process that a task belongs to. `check` raises Crash once that is dead."""

    world: World
    dead: bool

    def check(self) -> None: ...


class Task:
    """A thread of a process, which runs only while it holds the baton."""

    here = threading.local()

    def __init__(self, node: Owner, work: Callable[[], None]) -> None:
        self.node = node
        self.ended = False
        self._work = work
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run until it pauses or ends."""
        if not self.ended:
            self._go.release()
            self._back.acquire()

    def pause(self) -> None:
        """Give the baton back; a process that died meanwhile ends here."""
        self._back.release()
        self._go.acquire()
        self.node.check()

    @classmethod
    def rest(cls) -> None:
        """Pause the task that this is called in, if it is one."""
        task = getattr(cls.here, "task", None)
        if task is not None:
            task.pause()

    def _run(self) -> None:
        Task.here.task = self
        self._go.acquire()
        try:
            self.node.check()
            self._work()
        except Crash:
            self.node.dead = True
        except BaseException as error:  # noqa: BLE001 - a broken promise belongs to the test
            self.node.world.broken = error
        finally:
            self.ended = True
            self._back.release()


class SharedClock(Clock):
    """The time of a world. Who sleeps in a task lets the others go on."""

    def sleep(self, seconds: float) -> None:
        task = getattr(Task.here, "task", None)
        if task is None or not task.node.world.airborne:
            self.advance(seconds)
            return
        until = self() + seconds
        while self() < until:
            task.pause()


class InTheAir(Inline):
    """Runs each call as a task of its own: what it waits for, nobody else does."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future, call = prepared(work)
        self._node.begin(call)
        return future
