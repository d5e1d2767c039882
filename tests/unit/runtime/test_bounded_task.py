"""A task that runs once at a time, however its runs end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from vmrunner.errors import LedgerError
from vmrunner.runtime.bounded_task import BoundedTask


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, what
        threading.Event().wait(0.005)


class Played:
    """A task whose first run hangs. `now` is its monotonic clock."""

    def __init__(self, **options: Any) -> None:
        self.now, self.hang = 0.0, threading.Event()
        self.began: list[threading.Thread] = []
        self.ended = 0
        self.task = BoundedTask(
            "played", self.work, bound=10.0, monotonic=lambda: self.now, **options
        )

    def work(self) -> None:
        self.began.append(threading.current_thread())
        if len(self.began) == 1:
            self.hang.wait(60)
        if len(self.began) == 3:
            raise RuntimeError("boom")
        if len(self.began) == 4:
            raise LedgerError("away")
        self.ended += 1


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called the host gives no thread more."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def test_a_hanging_run_is_replaced_and_a_failing_one_survived() -> None:
    played = Played()
    played.task()
    until(lambda: len(played.began) == 1, "the first run")
    played.now = 9.9
    played.task()
    assert len(played.began) == 1, "one at a time"
    played.now = 10.0
    played.task()
    until(lambda: played.ended == 1, "the run after the one that hangs")
    for n in (3, 4, 5):
        until(lambda n=n: played.task() or len(played.began) >= n, "a run after one that failed")
    until(lambda: played.ended >= 2, "its end")
    assert played.task.finished == 10.0
    assert len({thread.ident for thread in played.began[1:]}) == 1
    played.hang.set()
    played.task.stop()
    until(lambda: not any(t.is_alive() for t in played.began), "the end of its threads")


def test_runs_need_no_new_thread(no_more_threads: Callable[[], None]) -> None:
    played = Played()
    played.hang.set()
    played.task.start()
    no_more_threads()
    for n in (1, 2, 3, 4, 5):
        until(lambda n=n: played.task() or len(played.began) >= n, f"run {n}")
    played.task.stop()


def test_one_that_hangs_waits_for_a_thread(
    no_more_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played()
    played.task()
    until(lambda: len(played.began) == 1, "the first run")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError()))
        played.now = 10.0
        played.task()
        assert len(played.began) == 1
    played.now = 20.0
    played.task()
    until(lambda: played.ended == 1, "the run after the one that hangs")
    played.hang.set()
    played.task.stop()


def test_one_that_goes_alone_is_never_doubled(caplog: pytest.LogCaptureFixture) -> None:
    played = Played(alone=True)
    played.task()
    until(lambda: len(played.began) == 1, "the first run")
    for now in (10.0, 15.0, 20.0, 1000.0):
        played.now = now
        played.task()
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert messages == [f"played has taken {n} s, and goes on" for n in (10, 20, 1000)]
    played.hang.set()
    until(lambda: played.ended == 1, "its end")
    until(lambda: played.task() or len(played.began) == 2, "the next")
    played.task.stop()
    assert len(set(played.began)) == 1
