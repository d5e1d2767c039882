"""A clock that leapt, on whose word nothing may be deleted for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.ledger import Ledger
from vmrunner.reaper.clock_witness import ClockWitness, believe_clock, clock_doubt

DAY = 86_400.0
NOW = 1_900_000_000.0


@dataclass
class Host:
    """A host's clocks: the one on its wall, which is wrong by `wrong`, and the monotonic."""

    ledger: Ledger
    elapsed: float = 0.0
    wrong: float = 0.0

    def wall(self) -> float:
        return NOW + self.elapsed + self.wrong

    def witness(self) -> Callable[[], str]:
        return ClockWitness(self.ledger, "e-1", lambda: self.elapsed).look


@pytest.fixture
def host(parts: EngineParts, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(parts.ledger)
    monkeypatch.setattr(time, "time", found.wall)
    return found


def test_a_clock_weeks_fast_is_in_doubt(host: Host) -> None:
    look = host.witness()
    for _ in range(48):
        assert look() == ""
        host.elapsed += 3600.0
    assert clock_doubt(host.ledger) == ""
    host.wrong = 21 * DAY
    look = host.witness()  # it starts with that
    for _ in range(23):
        assert "21d" in look()
        assert clock_doubt(host.ledger)
        host.elapsed += 3600.0
    host.wrong = 0.0  # NTP sets it right
    assert look() == ""
    assert clock_doubt(host.ledger) == ""


def test_a_leap_is_believed_once_it_was_watched(host: Host) -> None:
    """The host was off for three weeks."""
    assert host.witness()() == ""
    host.wrong = 21 * DAY
    look = host.witness()
    assert look()
    host.elapsed += DAY - 1
    assert look()
    host.elapsed += 1
    assert look() == ""
    assert clock_doubt(host.ledger) == ""


def test_who_says_that_it_is_right_is_believed(host: Host) -> None:
    look = host.witness()
    assert look() == ""
    host.wrong = 2 * DAY
    assert look()
    believe_clock(host.ledger, "somebody")
    assert look() == ""


def test_where_nobody_ever_looked_nothing_is_doubted(host: Host) -> None:
    assert clock_doubt(host.ledger) == ""


def test_a_clock_set_back_is_none_that_leapt(host: Host) -> None:
    look = host.witness()
    assert look() == ""
    host.wrong = -30 * DAY
    host.elapsed += 600.0
    assert look() == ""
    host.wrong = 0.0
    host.elapsed += 60.0
    assert look(), "and that is one"
