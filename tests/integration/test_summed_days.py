"""Sums of days tell the same as the rows of which they are made."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.integration.test_old_rows import count, nothing, over, raw
from vmrunner.core import cost_report
from vmrunner.ledger import Ledger, day_sums, upgrade
from vmrunner.ledger.connections import single_transaction
from vmrunner.ledger.urls import parse_url
from vmrunner.model import PriceSource, Rate
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.services import costs

DAY = 86_400.0
PROVIDERS = cast("ProviderSet", SimpleNamespace(time_at=lambda *_: 40 * DAY))
NOW = 30 * DAY + 100.0
RATES = (
    Rate(usd_hour=0.36, parked_usd_hour=0.036, source=PriceSource.CLOUD, at=1.0),
    Rate(usd_hour=0.72, parked_usd_hour=0.0, source=PriceSource.SHIPPED, at=2.0),
    Rate(usd_hour=0.5, source=PriceSource.CLOUD, at=3.0),  # parked, its price is unknown
    Rate(),
)
TENANTS = ("local", '{"team": "a"}', '{"team": "b"}')
SINCE = (0.0, 10 * DAY, 10.25 * DAY, 10.5 * DAY, 11 * DAY, 11.6 * DAY, 12.4 * DAY)


@pytest.fixture(autouse=True, scope="module")
def today() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "time", SimpleNamespace(time=lambda: 40 * DAY))
        yield


def lines(ledger: Ledger, by: str, since: float, own: dict[str, str]) -> list[Any]:
    return [
        {
            name: pytest.approx(value, rel=1e-9, abs=1e-3) if isinstance(value, float) else value
            for name, value in {**asdict(line), **asdict(line.cost), "cost": None}.items()
        }
        for line in costs.report(ledger, PROVIDERS, by=by, since=40 * DAY - since, own=own)
    ]


def reports(ledger: Ledger, moments: Collection[float] = SINCE) -> dict[Any, Any]:
    questions = itertools.product(("provider", "day", "label:team"), moments, ({}, {"team": "a"}))
    return {(by, since, tuple(own)): lines(ledger, by, since, own) for by, since, own in questions}


def same(ledger: Ledger, before: dict[Any, Any]) -> None:
    again = reports(ledger, {since for _, since, _ in before})
    for question, found in before.items():
        assert again[question] == found, question


QUARTERS = st.integers(36, 52).map(lambda n: n / 4)  # days, of which some are midnights
HOURS = st.sampled_from((0.001, 0.01, 1.0, 6.0, 23.9, 24.0, 30.0, 60.0))
VM = st.tuples(QUARTERS, HOURS, st.sampled_from(RATES), st.booleans(), st.booleans())
BUILD = st.tuples(
    st.lists(VM, min_size=1, max_size=3),
    st.sampled_from(TENANTS),
    st.sampled_from(({}, {"team": "a"}, {"team": "b"}, {"team": "a", "x": "y"})),
    st.sampled_from(("over", "over", "over", "runs", "pool")),
)


def write(ledger: Ledger, number: int, build: Any) -> None:
    """A build with VMs of its own, or VMs of a pool that nobody claimed."""
    vms, tenant, labels, state = build
    name = f"b-{number}"
    over(ledger, name, 1.0, 2.0, labels=labels)
    raw(ledger, "UPDATE builds SET tenant = :tenant WHERE id = :id", tenant=tenant, id=name)
    columns = (
        "attempt, provider, role, state, state_since, deadline, epoch, message, deletes, "
        "delete_at, offer, ref"
    )
    for n, (day, hours, rate, parks, wakes) in enumerate(vms):
        begin, end = day * DAY, day * DAY + hours * 3600
        raw(
            ledger,
            f"INSERT INTO instances (id, build, created_at, gone_at, parked_at, claimed_at, "
            f"usd_hour, parked_usd_hour, price_source, price_at, {columns}) SELECT :vm, "
            f"CASE WHEN :pool THEN NULL ELSE build END, :begin, :end, :parked, :claimed, :usd, "
            f":parked_usd, :source, :at, {columns} FROM instances WHERE id = :first",
            vm=f"vm-{name}-{n}", first=f"vm-{name}", pool=state == "pool", begin=begin, end=end,
            parked=(begin + end) / 2 if parks else None,
            claimed=begin + (end - begin) * 0.75 if parks and wakes else None,
            usd=rate.usd_hour, parked_usd=rate.parked_usd_hour, source=rate.source.value,
            at=rate.at,
        )  # fmt: skip
    raw(ledger, "DELETE FROM instances WHERE id = :id", id=f"vm-{name}")
    if state == "runs":
        raw(ledger, "UPDATE builds SET state = 'running' WHERE id = :id", id=name)


def emptied(ledger: Ledger) -> None:
    for table in ("instances", "labels", "events", "builds", "summed_days", "cost_days"):
        raw(ledger, f"DELETE FROM {table}")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(BUILD, min_size=1, max_size=4),
    st.lists(BUILD, max_size=2),
    st.sets(st.sampled_from(SINCE), min_size=1, max_size=2),
)
def test_sums_tell_what_rows_tell(
    ledger: Ledger, builds: Any, late: Any, moments: Collection[float]
) -> None:
    """Of all VMs there could be, at whichever time of a day a report begins; also of builds that
    end after their days were summed."""
    emptied(ledger)
    for number, build in enumerate((*builds, *late)):
        write(ledger, number, build)
    before = reports(ledger, moments)
    raw(ledger, "UPDATE builds SET state = 'running' WHERE id >= :id", id=f"b-{len(builds)}")
    ledger.settled_costs.add(NOW, sleep=nothing)
    same(ledger, before)
    raw(ledger, "UPDATE builds SET state = 'finished' WHERE id >= :id", id=f"b-{len(builds)}")
    ledger.settled_costs.add(NOW, sleep=nothing)
    same(ledger, before)
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 0


def summed(ledger: Ledger, build: str) -> bool | None:
    query = text("SELECT summed FROM instances WHERE build = :id")
    found = ledger._database.read(lambda c: c.execute(query, {"id": build}).scalar())
    return None if found is None else bool(found)


def test_rows_in_sums_are_read_no_more(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those of the day in which a report begins."""
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    over(ledger, "b-2", 11.2 * DAY, 11.3 * DAY)
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 2
    rows = ledger.spending.since(10.1 * DAY, {})
    assert [row.build for row in rows.spent] == ["b-1"]
    assert [key.day for key, _ in rows.days] == [11 * DAY]
    rows = ledger.spending.since(10.0 * DAY, {})
    assert not rows.spent
    assert len(rows.days) == 2


@pytest.mark.parametrize("what", ["today", "unfinished", "unseen", "odd"])
def test_what_may_still_change_is_not_summed(ledger: Ledger, what: str) -> None:
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    over(ledger, "b-2", 10.2 * DAY, 10.3 * DAY)
    change = {
        "today": f"UPDATE instances SET gone_at = {NOW - 50} WHERE build = 'b-1'",
        "unfinished": "UPDATE builds SET state = 'held' WHERE id = 'b-1'",
        "unseen": "UPDATE instances SET state = 'deleting', gone_at = NULL WHERE build = 'b-1'",
        "odd": "UPDATE instances SET role = 'of_tomorrow' WHERE build = 'b-1'",
    }
    raw(ledger, change[what])
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 1
    assert summed(ledger, "b-1") is (False if what == "odd" else None)
    assert summed(ledger, "b-2") is True


@pytest.mark.parametrize("change", [f"gone_at = {NOW - 50}", "state = 'deleting', gone_at = NULL"])
def test_vms_of_a_build_are_summed_together(ledger: Ledger, change: str) -> None:
    for build in ("b-1", "b-2", "b-3"):
        over(ledger, build, 10.2 * DAY, 10.3 * DAY)
    raw(ledger, f"UPDATE instances SET build = 'b-1', {change} WHERE build = 'b-3'")
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 1
    assert (summed(ledger, "b-1"), summed(ledger, "b-2")) == (None, True)


def test_too_many_sets_of_labels_stay_rows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of each commit: sums would be as many as rows, and no report may lose a label while
    there are rows."""
    monkeypatch.setattr(day_sums, "MOST_OWNERS", 2)
    for n in range(5):
        over(ledger, f"b-{n}", 10.1 * DAY, 10.2 * DAY, labels={"team": f"t{n}"})
    before = reports(ledger)
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 2
    same(ledger, before)
    assert ledger.old_rows.remove(50 * DAY, 140 * DAY, sleep=nothing).count == 5
    assert count(ledger, "summed_days") == count(ledger, "cost_days") == 3


def test_sums_stay_when_rows_go(ledger: Ledger) -> None:
    for n in range(4):
        over(ledger, f"b-{n}", (10 + n / 2) * DAY, (10.1 + n / 2) * DAY, labels={"team": "a"})
    before = {
        question: found for question, found in reports(ledger).items() if question[1] % DAY == 0
    }
    assert ledger.settled_costs.add(11.2 * DAY, sleep=nothing) == 2
    assert ledger.old_rows.remove(50 * DAY, 140 * DAY, sleep=nothing).count == 4
    same(ledger, before)


def test_days_of_a_former_ledger_stay(tmp_path: Path) -> None:
    """Version 0016 had sums of rows that are gone alone, under other names."""
    with closing(Ledger.open(f"sqlite:///{tmp_path}/new.db", data_dir=tmp_path)) as ledger:
        for n in range(4):
            over(ledger, f"b-{n}", (10 + n) * DAY, (10.1 + n) * DAY, labels={"team": "a"})
        before = {
            question: found for question, found in reports(ledger).items() if question[1] % DAY == 0
        }
        assert ledger.old_rows.remove(50 * DAY, 140 * DAY, sleep=nothing).count == 4
        find = text("SELECT * FROM cost_days")
        days = ledger._database.read(lambda c: [dict(row._mapping) for row in c.execute(find)])
    url = f"sqlite:///{tmp_path}/former.db"
    config = Config()
    config.set_main_option("script_location", str(upgrade.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with single_transaction(parse_url(url)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0016")
        for day in days:
            columns = ", ".join(name.replace("_ended", "_begun") for name in day)
            values = ", ".join(f":{name}" for name in day)
            connection.execute(text(f"INSERT INTO cost_days ({columns}) VALUES ({values})"), day)
    with closing(Ledger.open(url, data_dir=tmp_path)) as ledger:
        assert count(ledger, "summed_days") == count(ledger, "cost_days") == 4
        same(ledger, before)


def test_no_revision_comes_of_a_sum(ledger: Ledger) -> None:
    """Nobody who follows a build is told of it."""
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    query = text("SELECT last FROM revisions")
    before = ledger._database.read(lambda c: c.execute(query).scalar())
    assert ledger.settled_costs.add(NOW, sleep=nothing) == 1
    assert ledger._database.read(lambda c: c.execute(query).scalar()) == before


def test_a_time_that_is_over_ends_it(ledger: Ledger) -> None:
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    times = iter((0.0, 5.0))
    assert ledger.settled_costs.add(NOW, sleep=nothing, clock=times.__next__, longest=5.0) == 0


def test_a_report_sees_one_moment(ledger: Ledger) -> None:
    """What is summed between its rows and its sums is counted once."""
    over(ledger, "b-1", 10.2 * DAY, 10.3 * DAY)
    before = lines(ledger, "provider", 0.0, {})
    between = day_sums.SUMMED.between

    def late(*arguments: Any) -> Any:
        assert ledger.settled_costs.add(NOW, sleep=nothing) == 1
        return between(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(day_sums.SUMMED, "between", late)
        assert lines(ledger, "provider", 0.0, {}) == before
    assert lines(ledger, "provider", 0.0, {}) == before


def test_last_days_are_told_at_midnight() -> None:
    assert cost_report.next_midnight(3 * DAY) == 3 * DAY
    assert cost_report.next_midnight(3 * DAY + 1) == 4 * DAY
