"""The queue as those see it who ask again and again."""

from __future__ import annotations

import threading

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
