"""Costs: a rate is frozen with the intent, and all sums come to what was there times its rate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from tests.support.ledger_builds import launch, ref, running, submitted
from tests.support.pools import waiting
from vmrunner.core.cost_report import CostKind, CostLine
from vmrunner.core.pricing import MINIMUM
from vmrunner.errors import ConfigError
from vmrunner.ledger import DeathMark, Ledger
from vmrunner.ledger.build_costs import settle
from vmrunner.model import Death, ImageState, MadeImage, PriceSource, Rate, Reason, Result, Scope
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.services import costs

PROVIDERS = cast("ProviderSet", SimpleNamespace(time_at=lambda *_: 5000.0))
RATE = Rate(usd_hour=0.36, parked_usd_hour=0.036, source=PriceSource.CLOUD, at=1.0)
DONE = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE}


def priced(ledger: Ledger, build: str, vm: str, rate: Rate = RATE, **changes: Any) -> None:
    """A build with a VM since 100, which ends at 1100 and is gone at 1200."""
    submitted(ledger, build, **changes)
    order = launch(ledger, build, vm)
    ledger.instances.start([replace(order, instance=replace(order.instance, rate=rate))], until=9)
    ledger.instances.record([(vm, 1, ref("i-" + vm))], 101.0)


def ended(ledger: Ledger, build: str, vm: str) -> None:
    ledger.builds.finish(build, epoch=1, now=1100.0, death=Death.DONE, **DONE)
    assert ledger.instances.close(vm, epoch=2, death=Death.DONE, now=1200.0)


def report(ledger: Ledger, by: str = "provider", **more: Any) -> list[CostLine]:
    return costs.report(ledger, PROVIDERS, by=by, since=time.time(), **more)


def rated(ledger: Ledger, vm: str, usd_hour: float | None = 0.36) -> None:
    """Give a row a rate, as if it had been asked for with one."""
    query = text("UPDATE instances SET usd_hour = :u, parked_usd_hour = 0.036 WHERE id = :i")
    ledger._database.write(lambda c: c.execute(query, {"u": usd_hour, "i": vm}))


def test_a_rate_stays_as_it_was_at_the_start(ledger: Ledger) -> None:
    priced(ledger, "b-1", "vm-1")
    ledger.prices.store(Scope("fake", "account", "place"), {"small": 99.0}, 200.0)
    assert ledger.instances.get("vm-1").rate == RATE
    ended(ledger, "b-1", "vm-1")
    cost = ledger.builds.get("b-1").cost
    assert (cost.usd, cost.final) == (pytest.approx(0.11), True)
    assert (cost.source, cost.at) == (PriceSource.CLOUD, 1.0)


def test_a_cost_grows_until_the_last_vm_is_gone(ledger: Ledger) -> None:
    priced(ledger, "b-1", "vm-1")
    build, _ = ledger.builds.finish("b-1", epoch=1, now=1100.0, death=Death.DONE, **DONE)
    assert (build.cost.usd, build.cost.final) == (pytest.approx(0.1), False)
    assert ledger.builds.get("b-1").cost == build.cost
    ledger.instances.close("vm-1", epoch=2, death=Death.DONE, now=1900.0)
    assert ledger.builds.get("b-1").cost.usd == pytest.approx(0.18)


def test_a_vm_of_an_unknown_price_makes_a_cost_unknown(ledger: Ledger) -> None:
    priced(ledger, "b-1", "vm-1", Rate())
    ended(ledger, "b-1", "vm-1")
    cost = ledger.builds.get("b-1").cost
    assert (cost.usd, cost.known, cost.source) == (None, 0.0, PriceSource.UNKNOWN)
    [line] = report(ledger)
    assert (line.cost.usd, line.cost.unpriced) == (None, 1)
    assert costs.short(line.cost) == "unknown"


def test_a_vm_that_cannot_be_read_has_no_price(ledger: Ledger) -> None:
    """Nor is the cost final before somebody can."""
    priced(ledger, "b-1", "vm-1")
    ledger.builds.finish("b-1", epoch=1, now=1100.0, death=Death.DONE, **DONE)
    query = text("UPDATE instances SET offer = '{' WHERE id = 'vm-1'")
    ledger._database.write(lambda c: c.execute(query))
    costs_of = ledger._database.write(lambda c: settle(c, "b-1", 1200.0))
    cost = ledger.builds.get("b-1").cost
    assert (cost.usd, cost.known, cost.unpriced, cost.final) == (None, 0.0, 1, False)
    assert costs_of == cost


def test_a_build_that_is_tried_again_has_no_final_cost(ledger: Ledger) -> None:
    priced(ledger, "b-1", "vm-1")
    ledger.builds.retry("b-1", DeathMark(Death.VANISHED, "vm-1", ""), epoch=1, now=1100.0)
    assert ledger.instances.close("vm-1", epoch=2, death=Death.VANISHED, now=1200.0)
    cost = ledger.builds.get("b-1").cost
    assert (cost.usd, cost.final) == (pytest.approx(0.11), False)


def test_all_lines_come_to_time_times_rate(ledger: Ledger) -> None:
    """Σ builds + unclaimed + images = Σ instance time × rate, reckoned here from the rows alone."""
    priced(ledger, "b-1", "vm-1", labels={"team": "a"})
    ended(ledger, "b-1", "vm-1")
    priced(ledger, "b-2", "vm-2", labels={"team": "b"})  # it runs on
    priced(ledger, "b-3", "vm-3")
    ended(ledger, "b-3", "vm-3")
    waiting(ledger, "vm-idle")
    waiting(ledger, "vm-claimed")
    waiting(ledger, "vm-parked")
    for name in ("vm-idle", "vm-claimed", "vm-parked"):
        rated(ledger, name)
    claim(ledger, "b-4", "vm-claimed")
    ledger._database.write(
        lambda c: c.execute(text("UPDATE instances SET parked_at = 700 WHERE id = 'vm-parked'"))
    )
    image(ledger, RATE)

    query = text(
        "SELECT created_at, gone_at, usd_hour, parked_usd_hour, parked_at FROM instances "
        "UNION ALL SELECT created_at, closed_at, usd_hour, NULL, NULL FROM images"
    )
    expected = 0.0
    for created, gone, usd, asleep, parked in ledger._database.read(
        lambda c: c.execute(query).all()
    ):
        end = 5000.0 if gone is None else gone
        awake = end if parked is None else parked
        expected += (awake - created) * usd + (end - awake) * (asleep or 0.0)
    for by in ("provider", "day", "label:team"):
        found = report(ledger, by)
        assert sum(line.cost.known for line in found) == pytest.approx(expected / 3600), by
        assert {line.what for line in found} == set(CostKind)
    by_team = {line.key: line.cost.known for line in found if line.what is CostKind.BUILDS}
    assert by_team["a"] == pytest.approx(0.11)
    assert by_team["b"] == pytest.approx(0.49)
    assert by_team.keys() == {"a", "b", None}
    [unclaimed] = [line for line in found if line.what is CostKind.UNCLAIMED]
    assert unclaimed.vms == 2


def claim(ledger: Ledger, build: str, vm: str) -> None:
    won = ledger.pools.claim(
        submitted(ledger, build), ledger.instances.get(vm), generation=ledger.generation,
        owner="e-1", until=9e9, started=1100.0, now=1100.0,
    )  # fmt: skip
    assert won is not None


def image(ledger: Ledger, rate: Rate) -> None:
    ledger.images.add(
        MadeImage(
            id="im-1", provider="local", scope=Scope("fake", "account", "place"), name="n",
            recipe="r", hash="h", builder="vm-builder", state=ImageState.BUILDING,
            created_at=100.0, deadline=9000.0, rate=rate,
        )
    )  # fmt: skip
    ledger.images.close("im-1", 600.0)


def test_a_build_pays_for_the_time_its_vm_waited(ledger: Ledger) -> None:
    waiting(ledger, "vm-1")
    rated(ledger, "vm-1")
    claim(ledger, "b-1", "vm-1")
    ledger.builds.finish("b-1", epoch=2, now=2100.0, **DONE)
    assert ledger.builds.get("b-1").cost.usd == pytest.approx(0.36 * 2000 / 3600)


def test_a_span_holds_what_lies_in_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    priced(ledger, "b-1", "vm-1")
    ended(ledger, "b-1", "vm-1")
    monkeypatch.setattr(time, "time", lambda: 1300.0)
    [line] = costs.report(ledger, PROVIDERS, since=200.0)
    assert line.seconds == pytest.approx(100.0)
    monkeypatch.setattr(time, "time", lambda: 9000.0)
    assert costs.report(ledger, PROVIDERS, since=9000.0 - 1200.0 - MINIMUM) == []


def test_a_tenants_report_has_its_own_builds_alone(ledger: Ledger) -> None:
    for n, labels in enumerate(({"team": "a"}, {"team": "b"}, {}), start=1):
        running(ledger, f"b-{n}", f"vm-{n}", labels=labels)
    waiting(ledger, "vm-idle")
    image(ledger, RATE)
    [line] = report(ledger, own={"team": "a"})
    assert (line.what, line.builds, line.vms) == (CostKind.BUILDS, 1, 1)


@pytest.mark.parametrize("by", ["", "team", "label:", "Provider"])
def test_another_grouping_is_refused(by: str) -> None:
    with pytest.raises(ConfigError, match="by: ") as refused:
        costs.check_group(by)
    assert "label:NAME" in refused.value.hint


def test_what_the_ledger_knew_before_is_kept(ledger: Ledger) -> None:
    prices = ledger.prices
    scope = Scope("ec2", "1", "eu-west-1")
    prices.store(scope, {"m7i.large": 0.1, "gp3 GiB": 0.0001}, 100.0)
    prices.store(scope, {"m7i.large": 0.2}, 200.0)
    rates: Mapping[str, Any] = prices.of(scope)
    assert {item: (price.usd_hour, price.at) for item, price in rates.items()} == {
        "m7i.large": (0.2, 200.0), "gp3 GiB": (0.0001, 100.0),
    }  # fmt: skip
    assert prices.ages() == [("ec2", "eu-west-1", 100.0, 200.0)]
    assert prices.of(Scope("ec2", "1", "eu-west-2")) == {}
