"""Calls that recur, by a clock that is never set."""

from __future__ import annotations

import threading

import pytest

from vmrunner.runtime.timers import Timers


def test_each_is_called_when_its_time_has_come() -> None:
    now, called = [0.0], []
    timers = Timers(lambda: now[0])
    timers.every("fast", 5.0, lambda: called.append("fast"), at_once=True)
    timers.every("slow", 30.0, lambda: called.append("slow"))
    for second in range(61):
        now[0] = float(second)
        timers.run_due()
    assert (called.count("fast"), called.count("slow")) == (13, 2)
    now[0] = 500.0
    timers.run_due()
    assert (called.count("fast"), called.count("slow")) == (14, 3), "what was missed is missed"


def test_what_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()

    def fails() -> None:
        raise RuntimeError("can't start new thread")

    timers = Timers()
    timers.every("bad", 0.01, fails)
    timers.every("good", 0.01, called.set)
    timers.start()
    assert called.wait(30)
    timers.stop()
    assert "bad" in {record.getMessage() for record in caplog.records}
