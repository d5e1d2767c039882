"""The queue as those see it who ask again and again."""

from __future__ import annotations

import threading

import pytest

from vmrunner.services.queue_reasons import CHEAP, PAUSES, QUEUE_KEPT, KeptQueue, QueueView


class Looks:
    """Looks at a queue that has one build more each time, and costs `cost` seconds."""

    def __init__(self) -> None:
        self.cost, self.spent, self.now, self.count = 0.0, 0.0, 100.0, 0
        self.kept = KeptQueue(lambda: self.spent, lambda: self.now)

    def look(self) -> QueueView:
        self.spent += self.cost
        self.count += 1
        return QueueView(
            builds={}, line=(), reasons={"n": str(self.count)}, full=frozenset(), served=(),
            paused=False,
        )  # fmt: skip

    def get(self) -> tuple[str, bool]:
        view, is_new = self.kept.get(self.look)
        return view.reasons["n"], is_new


class Entered:
    """A lock that counts who asks for it."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock, self.calls = lock, threading.Semaphore(0)

    def acquire(self, blocking: bool = True) -> bool:
        self.calls.release()
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()


def test_a_queue_that_costs_little_is_never_old() -> None:
    looks = Looks()
    looks.cost = CHEAP
    assert [looks.get() for _ in range(3)] == [("1", True), ("2", True), ("3", True)]


def test_a_costly_queue_is_kept_for_a_while() -> None:
    looks = Looks()
    looks.cost = CHEAP * 2
    assert [looks.get() for _ in range(3)] == [("1", True), ("1", False), ("1", False)]
    looks.now += PAUSES * looks.cost
    assert [looks.get() for _ in range(2)] == [("2", True), ("2", False)]
    looks.now += PAUSES * looks.cost
    looks.cost = 60.0
    assert looks.get() == ("3", True)
    looks.now += QUEUE_KEPT
    looks.cost = 0.0
    assert [looks.get() for _ in range(2)] == [("4", True), ("5", True)], "it is short again"


def test_while_one_looks_others_have_the_former() -> None:
    looks = Looks()
    looks.cost = 60.0
    looks.get()
    looks.now += QUEUE_KEPT
    begun, may_end, found = threading.Event(), threading.Event(), list[tuple[str, bool]]()

    def slow() -> QueueView:
        begun.set()
        assert may_end.wait(30)
        return looks.look()

    thread = threading.Thread(target=lambda: looks.kept.get(slow))
    thread.start()
    assert begun.wait(30)
    found.append(looks.get())
    may_end.set()
    thread.join(30)
    found.append(looks.get())
    assert found == [("1", False), ("2", False)]


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_old_is_shown_to_nobody(kept: bool) -> None:
    """Of many who ask at once where nothing recent is kept one looks, and the others wait."""
    looks = Looks()
    looks.cost = 60.0
    if kept:
        looks.get()
        looks.now += 2 * QUEUE_KEPT
    begun, may_end, found = threading.Event(), threading.Event(), list[tuple[str, bool]]()
    waiting = Entered(looks.kept._looking)
    looks.kept._looking = waiting  # type: ignore[assignment]

    def slow() -> QueueView:
        begun.set()
        assert may_end.wait(30)
        return looks.look()

    def ask() -> None:
        view, is_new = looks.kept.get(slow)
        found.append((view.reasons["n"], is_new))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    assert all(waiting.calls.acquire(timeout=30) for _ in threads)
    may_end.set()
    for thread in threads:
        thread.join(30)
    newest = "2" if kept else "1"
    assert sorted(found) == [(newest, False)] * 4 + [(newest, True)]
