"""Alarms for webhooks, and what becomes of an event that nobody takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.ledger_builds import started
from tests.support.pools import POOL
from tests.support.webhook_receiver import Receiver, named, sender, waiting
from tests.support.webhook_receiver import receiver as receiver  # the fixture
from vmrunner.config.notify import NotifySettings
from vmrunner.core.reap_plan import Sighting, SightingKind
from vmrunner.ledger import Ledger, outbox
from vmrunner.model import (
    TRACES,
    Budget,
    BudgetPeriod,
    BudgetState,
    EmptyReason,
    Level,
    NotifyEndpoint,
    NotifyEvent,
    PoolPlace,
)
from vmrunner.services import alarms, notifications, pools

# --- giving up -----------------------------------------------------------------------------------


def settings(name: str = "chat", **options: Any) -> NotifySettings:
    return NotifySettings(name=name, url="http://127.0.0.1:1/", secret="HOOK_KEY", **options)


def test_what_is_too_old_is_given_up_and_said(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")
    now = time.time()
    named(ledger)
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-1", now - outbox.GIVE_UP - 1)
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-2", now)
    assert ledger.outbox.tidy(now) == {"chat": 1}
    assert ledger.outbox.tidy(now) == {}
    assert waiting(ledger) == ["vm-2"]
    (status,) = ledger.outbox.status()
    assert (status.given_up, status.given_up_at) == (1, now)
    (finding,) = notifications.findings(ledger, [settings()], now)
    assert finding.level is Level.ERROR
    assert "given up" in finding.message


def test_more_than_the_cap_never_waits(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CAP", 3)
    now = time.time()
    named(ledger)
    for n in range(5):
        ledger.outbox.add(NotifyEvent.SURVIVOR, f"vm-{n}", now)
    assert ledger.outbox.tidy(now) == {"chat": 2}
    assert sorted(waiting(ledger)) == ["vm-2", "vm-3", "vm-4"]


def test_what_waits_for_nobody_goes_with_its_endpoint(ledger: Ledger) -> None:
    now = time.time()
    then = now - outbox.FORGOTTEN - 1
    ledger.outbox.declare([NotifyEndpoint(name="chat", events=frozenset(NotifyEvent))], then)
    ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-1", now - 2)
    ledger.outbox.tidy(now)
    named(ledger)
    assert waiting(ledger) == []


def test_what_was_told_is_remembered_for_a_week_and_forgotten(
    ledger: Ledger, receiver: Receiver
) -> None:
    named(ledger)
    now = time.time()

    def tell() -> None:
        ledger.outbox.add(NotifyEvent.SURVIVOR, "vm-1", now, data="{}")
        sender(ledger, receiver.url).run()

    tell()
    tell()
    assert len(receiver.bodies) == 1
    # Who is named still: an endpoint that nobody names goes with all its events.
    later = now + outbox.KEEP + 1
    ledger.outbox.declare([NotifyEndpoint(name="chat", events=frozenset(NotifyEvent))], later)
    ledger.outbox.tidy(later)
    named(ledger)
    tell()
    assert len(receiver.bodies) == 2


# --- alarms --------------------------------------------------------------------------------------


class Clocks:
    """Where all clouds have our time."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time_at(self, *_: object) -> float:
        return self.now


def test_each_alarm_is_told_once(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(ledger)
    _, row = started(ledger)
    sweep = Sighting(
        what=SightingKind.LATCH, subject="fake/a/z", place="fake/a/z", sweep="s-1", begun=5.0
    )
    ledger.sightings.record("p", [sweep.place], [sweep])
    monkeypatch.setattr(
        alarms.audit, "silence", lambda _: [alarms._late(row, 1.0)]
    )  # the audit's own rule has its own tests
    budget = Budget(usd=10.0, period=BudgetPeriod.DAY, match={"team": "core"})
    stands = [
        BudgetState(budget=budget, start=day, held=held) for day, held in [(0, 9.0), (1, 9.1)]
    ]
    monkeypatch.setattr(ledger.budgets, "states", lambda _: stands)
    for late in (59.0, 61.0, 99.0):
        clocks: Any = Clocks(row.deadline + late)
        alarms.write_alarms(ledger, clocks, grace=60.0, now=time.time())
    sender(ledger, receiver.url).run()
    by_event = {body["event"]: body for body in receiver.bodies}
    assert len(by_event) == len(receiver.bodies) == 4
    (survivor,) = by_event["alarm.survivor"]["items"]
    assert (survivor["instance"], survivor["late"]) == (row.id, 61.0)
    assert by_event["alarm.orphans_latched"]["items"][0]["place"] == "fake/a/z"
    (spent,) = by_event["alarm.budget"]["items"]
    assert (spent["name"], spent["usd"], spent["held_usd"]) == ("day team=core", 10.0, 9.1)
    assert by_event["alarm.reaper_silent"]["kind"] == "survivor"


def test_a_pool_that_fails_is_told_until_it_works(ledger: Ledger, receiver: Receiver) -> None:
    """Once for each time that it began to fail, on each host."""
    named(ledger)
    ledger.pools.declare({"fast": POOL}, "e-1", 100.0)

    def look(failures: int, since: float, reason: EmptyReason | None = EmptyReason.BOOT) -> None:
        now = time.time()
        ledger.pools.note("fast", PoolPlace(
            place="here", want=2, empty_reason=reason, failures=failures, failing_since=since,
            noted_at=now,
        ))  # fmt: skip
        alarms.write_alarms(ledger, clocks, grace=60.0, now=now)

    clocks: Any = Clocks(200.0)
    look(2, 100.0)
    look(3, 100.0)
    look(4, 100.0)
    look(5, 100.0, None)
    look(9, 150.0, EmptyReason.CAPACITY)  # which nobody can mend here
    look(3, 160.0)
    sender(ledger, receiver.url).run()
    bodies = [body for body in receiver.bodies if body["event"] == "alarm.pool_failing"]
    assert [body["items"][0]["places"][0]["failures"] for body in bodies] == [3, 3]
    assert {body["kind"] for body in bodies} == {"pool"}
    (found,) = pools.findings(ledger, clocks)
    assert (found.level, "3 times in a row at here" in found.message) == (Level.WARNING, True)


def test_who_reads_no_secret_leaves_it_to_others(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")
    missing = settings("other").model_copy(update={"secret": "NOT_SET"})
    assert list(notifications.senders(ledger, [settings(), missing])) == ["chat"]
    found = list(notifications.findings(ledger, [missing], time.time()))
    assert [(f.level, "NOT_SET" in f.message) for f in found] == [(Level.ERROR, True)]


def test_doctor_tells_what_is_in_the_clear_and_of_traces(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")
    named(ledger)
    named(ledger, TRACES)
    plain = settings().model_copy(update={"url": "http://hooks.example.org/"})
    found = notifications.findings(ledger, [settings(), plain], time.time())
    assert [(finding.check, finding.level) for finding in found] == [
        ("notify chat", Level.OK), ("notify chat", Level.WARNING), ("traces", Level.OK),
    ]  # fmt: skip
