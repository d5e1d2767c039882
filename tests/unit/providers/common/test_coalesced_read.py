"""Reads that are made together."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.scripted_app import wait_until
from vmrunner.providers.common.coalesced_read import CoalescedRead

ASKERS = 8


class Machines:
    """A cloud whose next call waits until it is let go."""

    def __init__(self) -> None:
        self.state = "pending"
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.failures: list[Exception] = []

    def __call__(self, ids: Sequence[str]) -> Mapping[str, str]:
        state = self.state
        self.calls.append(sorted(ids))
        assert self.gate.wait(10)
        if self.failures:
            raise self.failures.pop()
        return {name: state for name in ids if not name.startswith("absent")}


def asked_together(machines: Machines, names: Sequence[str]) -> list[Future[str | None]]:
    """The answers of one who is in a call, and of those who ask meanwhile."""
    read = CoalescedRead(machines)
    pool = ThreadPoolExecutor(len(names))
    first = pool.submit(read, names[0])
    wait_until(lambda: machines.calls)
    machines.state = "applied"
    others = [pool.submit(read, name) for name in names[1:]]
    wait_until(lambda: len(read._waiting) == len(others))
    machines.gate.set()
    pool.shutdown()
    return [first, *others]


def test_all_who_ask_amid_a_call_share_the_next() -> None:
    machines = Machines()
    names = [f"i-{n}" for n in range(ASKERS)]
    asked_together(machines, names)
    assert machines.calls == [names[:1], names[1:]]


def test_an_answer_is_read_after_its_question() -> None:
    """Who asks amid a call is not answered by it, though it is for the same machine."""
    first, *others = asked_together(Machines(), ["i-1"] * ASKERS)
    assert first.result() == "pending"
    assert [each.result() for each in others] == ["applied"] * (ASKERS - 1)


def test_what_is_not_there_has_no_value() -> None:
    _, found, absent = asked_together(Machines(), ["i-1", "i-2", "absent-1"])
    assert (found.result(), absent.result()) == ("applied", None)


def test_a_failure_is_of_its_call_alone() -> None:
    machines = Machines()
    machines.failures = [ConnectionError("reset")]
    first, *others = asked_together(machines, ["i-1", "i-2", "i-3"])
    with pytest.raises(ConnectionError, match="reset"):
        first.result()
    assert [each.result() for each in others] == ["applied"] * 2
