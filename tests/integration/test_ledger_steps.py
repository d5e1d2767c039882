"""What takes long in the ledger is done in steps, between which others have their turn."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Select

from tests.support.ledger_builds import finished
from vmrunner.ledger import Ledger, logs
from vmrunner.ledger.database import Prepared, Rows

DAY = 86_400.0


def chunks_of(ledger: Ledger, *builds: str) -> int:
    return sum(len(ledger.logs.read(build)) for build in builds)


def test_retention_leaves_the_ledger_to_others_in_between(ledger: Ledger) -> None:
    """Promise 1: no reaper and no tick waits for the night's logs."""
    names = finished(ledger, "b-1", chunks=150), finished(ledger, "b-2", chunks=10)
    recent = finished(ledger, "b-3", chunks=2, at=90 * DAY)
    left = [chunks_of(ledger, *names)]

    def others_turn(seconds: float) -> None:
        assert seconds > 0
        assert ledger.engines.acquire("reaper", "e-1", until=1e9, now=1.0)
        left.append(chunks_of(ledger, *names))

    assert ledger.logs.delete_before(30 * DAY, sleep=others_turn) == 160
    steps = [before - after for before, after in zip(left, [*left[1:], 0], strict=True)]
    assert len(steps) >= 3
    assert max(steps) <= 64
    assert chunks_of(ledger, *names) == 0
    assert chunks_of(ledger, recent) == 2


def test_retention_looks_at_each_build_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But at what ended in the last day before: hosts' clocks differ."""
    looked: list[str] = []
    first = logs._FIRST

    def look(connection: Connection, *, build: str) -> Rows:
        looked.append(build)
        return first(connection, build=build)

    monkeypatch.setattr(logs, "_FIRST", look)
    finished(ledger, "b-1", chunks=3)
    finished(ledger, "b-2", at=29.5 * DAY)
    finished(ledger, "b-3", at=31 * DAY)
    removed = [ledger.logs.delete_before(before * DAY) for before in (30, 30, 32, 10)]
    assert removed == [3, 0, 0, 0]
    assert looked == ["b-1", "b-1", "b-2", "b-2", "b-2", "b-3", "b-1"]


def test_builds_that_ended_at_one_moment_are_all_done(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [finished(ledger, f"b-{n}", chunks=1) for n in range(6)]
    statement = logs._OLD._make()
    assert isinstance(statement, Select)
    monkeypatch.setattr(logs, "_OLD", Prepared(lambda: statement.limit(2)))
    monkeypatch.setattr(logs, "_BUILDS", 2)
    assert ledger.logs.delete_before(30 * DAY) == 6
    assert chunks_of(ledger, *names) == 0


def test_a_removal_that_breaks_off_is_gone_on_with(ledger: Ledger) -> None:
    names = [finished(ledger, f"b-{n}", chunks=40) for n in range(3)]

    class Killed(Exception):
        pass

    def kill(_: float) -> None:
        raise Killed

    for _ in range(2):
        try:
            ledger.logs.delete_before(30 * DAY, sleep=kill)
        except Killed:
            assert 0 < chunks_of(ledger, *names) < 120
    assert ledger.logs.delete_before(30 * DAY) <= 56
    assert chunks_of(ledger, *names) == 0
