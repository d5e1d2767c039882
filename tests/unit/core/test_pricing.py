"""Rates and costs of VMs: what is unknown is never 0."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.test_reap_rules import NOW, I, row
from vmrunner.core import pricing
from vmrunner.core.cost_report import CostKind, of_instance, report
from vmrunner.model import Bill, Cost, Instance, Kind, Price, PriceSource, Rate, Ref, Role

BILL = Bill(on={"m": 1.0, "disk": 20.0, "address": 1.0}, parked={"disk": 20.0})
TOLD = {"m": Price(0.1, 500.0), "disk": Price(0.001, 400.0), "address": Price(0.005, 500.0)}
OLD = {item: Price(2 * price.usd_hour, 9.0) for item, price in TOLD.items()}
RATE = Rate(usd_hour=3.6, parked_usd_hour=0.36, source=PriceSource.CLOUD, at=1.0)
REF = Ref(row().scope, Kind.INSTANCE, "i-1")


def vm(**changes: object) -> Instance:
    return row(**{"ref": REF, "rate": RATE, "created_at": NOW - 1000.0, **changes})


@pytest.mark.parametrize(
    ("role", "build", "what"),
    [
        (Role.BUILD, "b-1", CostKind.BUILDS),
        (Role.POOL, "b-1", CostKind.BUILDS),
        (Role.POOL, None, CostKind.UNCLAIMED),
        (Role.IMAGE, None, CostKind.IMAGES),
    ],
)
def test_each_vm_is_paid_for_something(role: Role, build: str | None, what: CostKind) -> None:
    assert of_instance(vm(role=role, build=build), NOW).what is what


def test_a_rate_has_machine_disk_and_address() -> None:
    rate = pricing.rate(BILL, TOLD, OLD)
    assert rate.usd_hour == pytest.approx(0.1 + 20 * 0.001 + 0.005)
    assert rate.parked_usd_hour == pytest.approx(20 * 0.001)
    assert (rate.source, rate.at) == (PriceSource.CLOUD, 400.0)


def test_the_shipped_table_has_what_the_cloud_did_not_tell() -> None:
    rate = pricing.rate(BILL, {"m": TOLD["m"]}, OLD)
    assert rate.usd_hour == pytest.approx(0.1 + 2 * (20 * 0.001 + 0.005))
    assert (rate.source, rate.at) == (PriceSource.SHIPPED, 9.0)


def test_one_unknown_part_makes_the_whole_unknown() -> None:
    assert pricing.rate(BILL, TOLD, {}).usd_hour is not None
    assert pricing.rate(BILL, {"m": TOLD["m"]}, {}) == Rate()
    assert pricing.rate(Bill(on={}), TOLD, OLD) == Rate()


def test_a_minute_is_billed_at_least() -> None:
    assert pricing.cost(vm(), NOW) == pytest.approx(1.0)
    assert pricing.cost(vm(created_at=NOW - 1), NOW) == pytest.approx(0.06)


def test_a_row_without_a_machine_costs_nothing() -> None:
    assert pricing.cost(vm(ref=None), NOW) == 0.0
    assert pricing.total([vm(ref=None)], lambda _: NOW, over=True).source is None


def test_an_unknown_price_is_unknown_and_not_nothing() -> None:
    unknown = vm(rate=Rate())
    assert pricing.cost(unknown, NOW) is None
    cost = pricing.total([vm(), unknown], lambda _: NOW, over=True)
    assert (cost.usd, cost.known, cost.unpriced) == (None, pytest.approx(1.0), 1)
    assert cost.source is PriceSource.UNKNOWN


def test_ones_own_machine_costs_a_known_nothing() -> None:
    own = vm(rate=Rate(usd_hour=0.0, parked_usd_hour=0.0, source=PriceSource.OWN))
    cost = pricing.total([own], lambda _: NOW, over=True)
    assert (cost.usd, cost.source) == (0.0, PriceSource.OWN)


def test_a_cost_is_final_when_all_vms_are_gone() -> None:
    gone = vm(state=I.GONE, gone_at=NOW)
    for rows, over, final in (
        ([gone], True, True),
        ([gone], False, False),
        ([gone, vm(state=I.DELETING)], True, False),
    ):
        assert pricing.total(rows, lambda _: NOW, over=over).final is final
    assert Cost().usd == 0.0


def test_only_the_disk_bills_while_parked() -> None:
    created_at = NOW - 1000.0
    parked = vm(pool="p", parked_at=created_at + 100.0, claimed_at=created_at + 600.0)
    assert pricing.cost(parked, NOW) == pytest.approx((100 + 400) / 1000 + 500 / 10_000)
    assert pricing.idle_cost(parked, 0.0, NOW) == pytest.approx(100 / 1000 + 500 / 10_000)
    asleep = replace(parked, claimed_at=None, state=I.PARKED)
    assert pricing.cost(asleep, NOW) == pytest.approx(100 / 1000 + 900 / 10_000)


times = st.floats(min_value=0.0, max_value=400_000.0)


@given(created_at=times, parked=times, claimed=times, gone=times, cuts=st.lists(times, max_size=4))
def test_parts_of_a_life_cost_as_much_as_the_whole(
    created_at: float, parked: float, claimed: float, gone: float, cuts: list[float]
) -> None:
    created_at, parked, claimed, gone = sorted((created_at, parked, claimed, gone))
    life = vm(
        state=I.GONE, created_at=created_at, parked_at=parked, claimed_at=claimed, gone_at=gone,
        pool="p", build="b-1",
    )  # fmt: skip
    edges = [0.0, *sorted(cuts), 500_000.0]
    pieces = [pricing.cost(life, gone, *part) for part in pairwise(edges)]
    assert sum(usd or 0.0 for usd in pieces) == pytest.approx(pricing.cost(life, gone))
    days = report([of_instance(life, gone)], 0.0, None)
    assert {line.what for line in days} == {CostKind.BUILDS}
    assert sum(line.cost.known for line in days) == pytest.approx(pricing.cost(life, gone))
