"""Rows have a retention: what is over goes whole, and sums and counts stay as they were."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from tests.support.ledger_builds import launch, ref, running, submitted
from vmrunner.errors import NotFound
from vmrunner.ledger import Ledger, day_sums, old_rows
from vmrunner.ledger.old_rows import LONGEST_NIGHT, REFUSED
from vmrunner.model import (
    Budget,
    BudgetAction,
    BudgetPeriod,
    Death,
    ObjectKind,
    ObjectState,
    PriceSource,
    Rate,
    Reason,
    Result,
    StoredObject,
)
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.services import costs

DAY = 86_400.0
PROVIDERS = cast("ProviderSet", SimpleNamespace(time_at=lambda *_: 99 * DAY))
RATE = Rate(usd_hour=0.36, parked_usd_hour=0.036, source=PriceSource.CLOUD, at=1.0)
LATER = {"before": 50 * DAY, "now": 140 * DAY}


def nothing(_: float) -> None:
    pass


def raw(ledger: Ledger, statement: str, **values: Any) -> None:
    ledger._database.write(lambda c: c.execute(text(statement), values).rowcount)


def count(ledger: Ledger, table: str) -> int:
    query = text(f"SELECT count(*) FROM {table}")
    return int(ledger._database.read(lambda c: c.execute(query).scalar_one()))


def over(
    ledger: Ledger, build: str, begun: float, end: float, rate: Rate = RATE, **changes: Any
) -> None:
    """A build whose VM was there for that span, of which nothing is left but rows."""
    submitted(ledger, build, **changes)
    order = launch(ledger, build, f"vm-{build}")
    ledger.instances.start([replace(order, instance=replace(order.instance, rate=rate))], until=9)
    ledger.instances.record([(f"vm-{build}", 1, ref(f"i-{build}"))], 101.0)
    ended = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE, "death": Death.DONE}
    ledger.builds.finish(build, epoch=1, now=end, **ended)  # type: ignore[arg-type]
    ledger.instances.close(f"vm-{build}", epoch=2, death=Death.DONE, now=end)
    raw(ledger, "UPDATE instances SET created_at = :at WHERE build = :id", at=begun, id=build)
    ledger.removals.remove(build, end, sleep=nothing)


def removed(ledger: Ledger, **more: Any) -> int:
    return ledger.old_rows.remove(**LATER, sleep=nothing, **more).count


def lines(ledger: Ledger, by: str, since: float, own: Mapping[str, str]) -> list[Any]:
    found = costs.report(ledger, PROVIDERS, by=by, since=time.time() - since, own=own)
    return [
        {
            name: pytest.approx(value, abs=1e-2) if isinstance(value, float) else value
            for name, value in {**asdict(line), **asdict(line.cost), "cost": None}.items()
        }
        for line in found
    ]


def reports(ledger: Ledger) -> dict[Any, Any]:
    questions = itertools.product(
        ("provider", "day", "label:team"), (0.0, 10 * DAY, 11 * DAY, 13 * DAY), ({}, {"team": "a"})
    )
    return {(by, since, tuple(own)): lines(ledger, by, since, own) for by, since, own in questions}


def test_costs_are_the_same_before_and_after(ledger: Ledger) -> None:
    """By all groups, since all days, for each principal."""
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY, labels={"team": "a"})
    over(ledger, "b-2", 10.9 * DAY, 12.1 * DAY, labels={"team": "a", "x": "y"})  # three days
    over(ledger, "b-3", 11.1 * DAY, 11.2 * DAY, labels={"team": "b"})
    over(ledger, "b-4", 11.5 * DAY, 13.2 * DAY, Rate())  # of an unknown price
    over(ledger, "b-5", 12.5 * DAY, 12.6 * DAY, replace(RATE, source=PriceSource.SHIPPED))
    over(ledger, "b-new", 60 * DAY, 61 * DAY, labels={"team": "a"})
    raw(ledger, "UPDATE builds SET tenant = '{\"team\": \"a\"}' WHERE id = 'b-1'")
    raw(ledger, "UPDATE builds SET tenant = '{\"team\": \"b\"}' WHERE id = 'b-2'")
    before = reports(ledger)
    assert before["provider", 0.0, ()]
    assert removed(ledger) == 5
    after = reports(ledger)
    for question, found in before.items():
        assert after[question] == found, question


def test_a_build_of_two_vms_is_counted_once(ledger: Ledger) -> None:
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    columns = (
        "attempt, provider, role, state, state_since, created_at, deadline, epoch, message, "
        "deletes, delete_at, price_source, usd_hour, offer, ref, gone_at"
    )
    raw(
        ledger,
        f"INSERT INTO instances (id, build, {columns}) SELECT 'vm-second', build, {columns} "
        "FROM instances",
    )
    before = reports(ledger)
    assert before["provider", 0.0, ()][0]["builds"] == 1
    assert before["provider", 0.0, ()][0]["vms"] == 2
    assert removed(ledger) == 1
    assert reports(ledger) == before


def test_counts_never_fall(ledger: Ledger) -> None:
    for n in range(3):
        over(ledger, f"b-{n}", (10 + n) * DAY, (10.5 + n) * DAY)
    metrics = ledger.metrics

    def counted() -> Any:
        return metrics.ended(), metrics.deaths(), [(p, pytest.approx(u)) for p, u in metrics.cost()]

    before = counted()
    assert removed(ledger) == 3
    assert counted() == before
    assert before[0][0][-1] == 3


def test_all_rows_of_a_build_go(ledger: Ledger) -> None:
    over(ledger, "b-1", 10 * DAY, 10.5 * DAY, labels={"team": "a"})
    over(ledger, "b-new", 60 * DAY, 61 * DAY)
    events = count(ledger, "events WHERE build = 'b-new'")
    assert removed(ledger, dry_run=True) == 1
    assert ledger.builds.get("b-1").finished
    assert removed(ledger) == 1
    assert removed(ledger) == 0
    with pytest.raises(NotFound):
        ledger.builds.get("b-1")
    with pytest.raises(NotFound):
        ledger.instances.get("vm-b-1")
    tables = ("builds", "instances", "labels", "chunks", "pool_starts")
    assert [count(ledger, table) for table in tables] == [1, 1, 0, 0, 0]
    assert count(ledger, "events") == events


def holds_a_log(ledger: Ledger) -> None:
    raw(ledger, "UPDATE builds SET removed_at = NULL WHERE id = 'b-1'")


def holds_an_object(ledger: Ledger) -> None:
    ledger.objects.begin(
        StoredObject(
            name="o", kind=ObjectKind.LOG, digest="d", size=1, created_at=1.0, tenant="local",
            build="b-1", state=ObjectState.UPLOADING,
        )
    )  # fmt: skip


def holds_a_vm(ledger: Ledger) -> None:
    raw(ledger, "UPDATE instances SET state = 'deleting', gone_at = NULL WHERE build = 'b-1'")


def holds_a_charge(ledger: Ledger) -> None:
    raw(ledger, "INSERT INTO budget_charges (budget, instance) VALUES ('x', 'vm-b-1')")


def holds_an_upload(ledger: Ledger) -> None:
    raw(ledger, "UPDATE builds SET log_due = 1 WHERE id = 'b-1'")


def holds_an_odd_row(ledger: Ledger) -> None:
    raw(ledger, "UPDATE instances SET death = 'of_tomorrow' WHERE build = 'b-1'")


@pytest.mark.parametrize(
    "holds",
    [holds_a_log, holds_an_object, holds_a_vm, holds_a_charge, holds_an_upload, holds_an_odd_row],
)
def test_a_build_stays_that_holds_anything(ledger: Ledger, holds: Callable[[Ledger], None]) -> None:
    """And keeps no other."""
    for n in range(3):
        over(ledger, f"b-{n}", (10 + n) * DAY, (10.5 + n) * DAY)
    holds(ledger)
    assert removed(ledger) == 2
    assert [build.id for build in ledger.builds.list()] == ["b-1"]


def test_what_runs_or_is_young_stays(ledger: Ledger) -> None:
    running(ledger, "b-1", "vm-1")
    submitted(ledger, "b-2")
    over(ledger, "b-3", 49 * DAY, 50 * DAY + 1)
    assert removed(ledger) == 0
    assert count(ledger, "builds") == 3


def test_vms_that_were_refused_go_after_a_day(ledger: Ledger) -> None:
    """A build that waits for capacity leaves one at each try."""
    running(ledger, "b-1", "vm-1")
    columns = (
        "build, attempt, provider, role, state_since, created_at, deadline, epoch, message, "
        "deletes, delete_at, price_source, offer"
    )
    now = LATER["now"]
    for n, gone_at in enumerate((now - REFUSED - 1, now - REFUSED - 1, now - REFUSED + 1)):
        raw(
            ledger,
            f"INSERT INTO instances (id, {columns}, state, death, gone_at) "
            f"SELECT :id, {columns}, 'gone', 'refused', :at FROM instances WHERE id = 'vm-1'",
            id=f"vm-refused-{n}", at=gone_at,
        )  # fmt: skip
    before = ledger.metrics.deaths()
    assert removed(ledger) == 0
    assert {row.id for row in ledger.instances.of_builds(["b-1"])} == {"vm-1", "vm-refused-2"}
    assert ledger.metrics.deaths() == before


def test_a_night_is_bounded_and_the_next_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_rows, "_AT_ONCE", 1)
    statement = old_rows._BUILDS._make()
    query = old_rows.Prepared(lambda: statement.limit(1))  # type: ignore[union-attr]
    monkeypatch.setattr(old_rows, "_BUILDS", query)
    for n in range(3):
        over(ledger, f"b-{n}", (10 + n) * DAY, (10.5 + n) * DAY)
    times = iter((0.0, 1.0, 2.0, LONGEST_NIGHT, LONGEST_NIGHT, LONGEST_NIGHT))
    assert removed(ledger, clock=lambda: next(times)) == 2
    assert removed(ledger) == 1


def test_many_sets_of_labels_are_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of each commit: the sum of all stays right."""
    monkeypatch.setattr(day_sums, "MOST_OWNERS", 2)
    for n in range(5):
        over(ledger, f"b-{n}", 10.1 * DAY, 10.2 * DAY, labels={"team": f"t{n}"})
    before = lines(ledger, "provider", 0.0, {})
    assert removed(ledger) == 5
    assert lines(ledger, "provider", 0.0, {}) == before
    assert count(ledger, "cost_days") == 3
    by_team = lines(ledger, "label:team", 0.0, {})
    assert [line["builds"] for line in by_team] == [1, 1, 3]


def test_a_budget_counts_what_went(ledger: Ledger) -> None:
    """What a VM cost is in its sums before its row goes."""
    budget = Budget(
        usd=1.0, period=BudgetPeriod.MONTH, action=BudgetAction.WARN, match={"team": "a"}
    )
    over(ledger, "b-1", 10 * DAY, 10.5 * DAY, labels={"team": "a"})
    ledger.budgets.declare([budget], 11 * DAY)
    before = [state.held for state in ledger.budgets.states(11 * DAY)]
    assert removed(ledger) == 0, "it is charged"
    assert [state.held for state in ledger.budgets.states(11 * DAY)] == before
