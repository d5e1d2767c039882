"""Work whose cost a caller chooses: one thread at a time, and a rest after it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from vmrunner.lib import turns
from vmrunner.lib.turns import SHORT, CostlyTurns


class Clock:
    """A thread's time that only `work` lets go on, and the rests that were had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work: CostlyTurns) -> None:
        self.now, self.rests, self._work = 0.0, list[tuple[float, bool]](), work
        fake = SimpleNamespace(thread_time=lambda: self.now, sleep=self._rest)
        monkeypatch.setattr(turns, "time", fake)

    def _rest(self, seconds: float) -> None:
        begun = []

        def other() -> None:
            with self._work.costly():
                begun.append(1)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        self.rests.append((seconds, not begun))
        self._other = thread


def test_while_one_rests_no_other_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight builds that collected had the interpreter all the time: each worked while seven
    rested."""
    work = CostlyTurns()
    clock = Clock(monkeypatch, work)
    with work.costly():
        clock.now += 0.3
    assert clock.rests == [(0.3, True)]
    clock._other.join(10)
    assert not clock._other.is_alive()


def test_many_short_works_rest_as_one_long_does(monkeypatch: pytest.MonkeyPatch) -> None:
    work = CostlyTurns()
    clock = Clock(monkeypatch, work)
    for _ in range(12):
        with work.costly():
            clock.now += SHORT * 0.8
    clock._other.join(10)
    assert sum(seconds for seconds, _ in clock.rests) == pytest.approx(12 * 0.8 * SHORT)
    with work.costly():
        clock.now += SHORT * 0.8
    assert len(clock.rests) == 6, "a short one alone needs none"
