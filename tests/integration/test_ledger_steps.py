"""What takes long in the ledger is done in steps, between which others have their turn."""

from __future__ import annotations

import pytest

from tests.support.ledger_builds import finished, running
from vmrunner.errors import Conflict
from vmrunner.ledger import Ledger, removals
from vmrunner.ledger.statements import Prepared
from vmrunner.model import ObjectKind, Reason, Result, StoredObject

DAY = 86_400.0


def chunks_of(ledger: Ledger, *builds: str) -> int:
    return sum(len(ledger.logs.read(build)) for build in builds)


def stored_log(ledger: Ledger, build: str) -> str:
    """The name of its log's object."""
    new = StoredObject(
        name=f"log-of-{build}", kind=ObjectKind.LOG, digest="d", size=1, created_at=1.0,
        build=build,
    )  # fmt: skip
    ledger.objects.begin(new)
    assert ledger.objects.conclude(new, epoch=1)
    return new.name


def test_retention_leaves_the_ledger_to_others_in_between(ledger: Ledger) -> None:
    """Promise 1: no reaper and no tick waits for the night's logs."""
    names = finished(ledger, "b-1", chunks=150), finished(ledger, "b-2", chunks=10)
    recent = finished(ledger, "b-3", chunks=2, at=90 * DAY)
    remaining = [chunks_of(ledger, *names)]

    def others_turn(seconds: float) -> None:
        assert seconds > 0
        assert ledger.engines.acquire("reaper", "e-1", until=1e9)
        remaining.append(chunks_of(ledger, *names))

    assert ledger.removals.remove_old(60 * DAY, 30 * DAY, sleep=others_turn).count == 2
    steps = [before - after for before, after in zip(remaining, [*remaining[1:], 0], strict=True)]
    assert len(steps) >= 3
    assert max(steps) <= 64
    assert chunks_of(ledger, *names) == 0
    assert chunks_of(ledger, recent) == 2


def test_retention_lets_go_of_many_stored_logs_at_once(ledger: Ledger) -> None:
    """A million logs a day lie in the store: a pause after each would be longer than the day."""
    names = [finished(ledger, f"b-{n:03}") for n in range(300)]
    late = finished(ledger, "b-late", chunks=2)
    logs = [stored_log(ledger, name) for name in names[:3]]
    pauses: list[float] = []
    assert ledger.removals.remove_old(60 * DAY, 30 * DAY, sleep=pauses.append).count == 301
    assert len(pauses) < 5
    assert chunks_of(ledger, late) == 0
    assert {ledger.builds.get(name).removed_at for name in (*names, late)} == {60 * DAY}
    found = [ledger.objects.get(log) for log in logs]
    assert [stored.unreferenced_since for stored in found] == [60 * DAY] * 3
    assert ledger.removals.remove_old(60 * DAY, 30 * DAY).count == 0


def test_retention_looks_at_each_build_once(ledger: Ledger) -> None:
    finished(ledger, "b-1", chunks=3)
    finished(ledger, "b-2", at=29.5 * DAY)
    finished(ledger, "b-3", at=31 * DAY)
    old = ledger.removals.remove_old
    assert [old((days + 30) * DAY, 30 * DAY).count for days in (30, 30, 32, 10)] == [2, 0, 1, 0]


def test_a_build_says_itself_how_long_its_log_is_kept(ledger: Ledger) -> None:
    for name, kept in (("b-1", None), ("b-2", DAY), ("b-3", 90 * DAY), ("b-4", 0.0)):
        running(ledger, name, f"vm-{name}", keep_logs=kept)
        ledger.logs.append(name, 1, 1, offset=1, data=b"x", now=105.0)
        success = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE}
        ledger.builds.finish(name, epoch=1, now=110.0, **success)
    remaining = []
    for days in (0.1, 2, 31, 91):
        ledger.removals.remove_old(110.0 + days * DAY, 30 * DAY)
        remaining.append([n for n in range(1, 5) if ledger.logs.read(f"b-{n}")])
    assert remaining == [[1, 2, 3], [1, 3], [3], []]


def test_builds_that_ended_at_one_moment_are_all_done(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [finished(ledger, f"b-{n}", chunks=1) for n in range(6)]
    statement = removals._OLD._make()
    monkeypatch.setattr(removals, "_OLD", Prepared(lambda: statement.limit(2)))
    assert ledger.removals.remove_old(60 * DAY, 30 * DAY).count == 6
    assert chunks_of(ledger, *names) == 0


def test_what_has_not_ended_is_not_removed(ledger: Ledger) -> None:
    running(ledger)
    with pytest.raises(Conflict, match="running"):
        ledger.removals.remove("b-1", 200.0)


def test_a_removal_that_breaks_off_is_gone_on_with(ledger: Ledger) -> None:
    names = [finished(ledger, f"b-{n}", chunks=40) for n in range(3)]

    class Killed(Exception):
        pass

    def kill(_: float) -> None:
        raise Killed

    for _ in range(2):
        try:
            ledger.removals.remove_old(60 * DAY, 30 * DAY, sleep=kill)
        except Killed:
            assert 0 < chunks_of(ledger, *names) < 120
    assert ledger.removals.remove_old(60 * DAY, 30 * DAY).count == 3
    assert chunks_of(ledger, *names) == 0
