"""What a pool needs now, and which builds it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger_builds import OFFER, spec
from tests.support.pools import POOL, instance
from vmrunner.core.lifecycle import POOL_BOOT, pool_death
from vmrunner.core.pools import FillInput, claimable, fill, lifetime, of_type, serves, shape_of
from vmrunner.core.row_rules import marks
from vmrunner.model import RUNSC, Death, EmptyReason, InstanceState, Limits, Network, Pool

HERE = Pool(spec=POOL, shape=shape_of(POOL), revision=1, named_at=100.0)


def given_(count: int = 0, **changes: Any) -> FillInput:
    values: dict[str, Any] = {
        "pool": HERE, "want": 2, "now": 200.0, "headroom": 10,
        "rows": [instance(id=f"vm-{n}") for n in range(count)],
    }  # fmt: skip
    return FillInput(**values | changes)


def test_a_pool_makes_what_it_lacks() -> None:
    assert fill(given_(0)).make == 2
    assert fill(given_(1)).make == 1
    assert fill(given_(2)) == fill(given_(2, headroom=0))
    assert fill(given_(2)).make == 0


def test_what_is_dying_takes_no_place_in_the_pool() -> None:
    dying = instance(id="vm-9", state=InstanceState.DELETING)
    assert fill(given_(1, rows=[dying, instance()])).make == 1


def test_it_makes_no_more_than_there_are_places() -> None:
    plan = fill(given_(0, headroom=1))
    assert plan.make == 1
    assert fill(given_(0, headroom=0)).empty is EmptyReason.MAX_INSTANCES


def test_builds_that_wait_come_first() -> None:
    """None is made, and of those that wait for nobody as many make room as builds need it."""
    plan = fill(given_(2, waiting=1, headroom=0))
    assert (plan.make, len(plan.end)) == (0, 1)
    assert fill(given_(2, waiting=5, headroom=0)).make == 0
    assert len(fill(given_(2, waiting=5, headroom=0)).end) == 2
    assert fill(given_(1, waiting=1, headroom=3)) == fill(given_(1, want=1, waiting=1, headroom=3))


def test_one_build_that_waits_takes_one_vm() -> None:
    """That one takes a while to be gone: no other ends meanwhile."""
    assert fill(given_(2, waiting=1, headroom=0, leaving=1)).end == ()
    assert len(fill(given_(2, waiting=2, headroom=0, leaving=1)).end) == 1


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"pool": replace(HERE, draining=True)}, {}),
        ({"forgotten": True}, {}),
        ({}, {"shape": "another"}),
        ({"images": frozenset({"new"})}, {}),
        ({"now": 100.0 + POOL.idle + POOL_BOOT}, {}),
        ({"want": 0}, {}),
    ],
)
def test_what_no_build_may_have_any_more_ends(changes: Any, row: Any) -> None:
    plan = fill(given_(rows=[instance(**row)], **changes))
    assert [row.id for row, _ in plan.end] == ["vm-1"]


def test_the_oldest_of_too_many_ends() -> None:
    rows = [instance(id=f"vm-{n}", created_at=100.0 + n) for n in (3, 1, 2)]
    assert [row.id for row, _ in fill(given_(rows=rows)).end] == ["vm-1"]


@given(
    want=st.integers(0, 6),
    headroom=st.integers(-2, 8),
    waiting=st.integers(0, 4),
    paused=st.booleans(),
    states=st.lists(st.sampled_from([s for s in InstanceState if s is not InstanceState.GONE])),
    shapes=st.lists(st.booleans(), min_size=50, max_size=50),
)
def test_no_plan_passes_its_bounds(
    want: int, headroom: int, waiting: int, paused: bool, states: list[InstanceState],
    shapes: list[bool],
) -> None:  # fmt: skip
    rows = [
        instance(id=f"vm-{n:02}", state=state, shape=HERE.shape if shapes[n % 50] else "old")
        for n, state in enumerate(states)
    ]
    plan = fill(given_(rows=rows, want=want, headroom=headroom, waiting=waiting, paused=paused))
    alive = [row for row in rows if row.state is not InstanceState.DELETING]
    remaining = len(alive) - len(plan.end)
    assert 0 <= plan.make <= max(0, headroom)
    assert remaining + plan.make <= max(want, 0)
    assert not (plan.make and (waiting or paused))
    assert len({row.id for row, _ in plan.end}) == len(plan.end)
    ready = [r for r in alive if r.state is InstanceState.READY]
    serving = [r for r in ready if r.id not in {row.id for row, _ in plan.end}]
    assert (plan.empty is None) == bool(serving)


# --- who may have one ---------------------------------------------------------------------------


def test_a_build_of_the_shape_may_have_it() -> None:
    assert serves(POOL, spec())
    assert claimable(instance(), HERE, spec(), [OFFER], 200.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"container": "alpine"},
        {"network": Network.NONE},
        {"docker": True},
        {"privileged": True},
        {"bootstrap": True},
        {"runtime": RUNSC},
        {"provider": "other"},
    ],
)
def test_any_other_build_may_not(changes: Any) -> None:
    assert not serves(POOL, spec(**changes))


@pytest.mark.parametrize(
    "row",
    [
        {"build": "b-2"},
        {"state": InstanceState.BOOTING},
        {"state": InstanceState.DELETING},
        {"pool": "slow"},
        {"shape": "another"},
        {"deadline": 299.0},
    ],
)
def test_what_is_not_free_may_not_be_had(row: Any) -> None:
    assert not claimable(instance(**row), HERE, spec(), [OFFER], 200.0)


@pytest.mark.parametrize("name", ["machine_type", "image", "disk", "cpus", "memory"])
def test_the_machine_must_be_the_one_it_would_get(name: str) -> None:
    other = replace(OFFER, **{name: 7 if name in ("disk", "cpus", "memory") else "other"})
    assert not claimable(instance(), HERE, spec(), [other], 200.0)
    assert claimable(instance(), HERE, spec(), [replace(OFFER, place="elsewhere")], 200.0)


@pytest.mark.parametrize(
    "changes", [{"container": "x"}, {"cpus": 3}, {"network": Network.NONE}, {"ttl": 1.0}]
)
def test_another_shape_has_another_hash(changes: Any) -> None:
    assert shape_of(replace(POOL, **changes)) != shape_of(POOL)
    assert shape_of(POOL, "g-1") != shape_of(POOL, "g-2")
    assert shape_of(replace(POOL, size=9)) == shape_of(POOL)


@pytest.mark.parametrize("machine_type", ["small", "large"])
def test_another_machine_type_has_another_hash(machine_type: str) -> None:
    typed = replace(POOL, machine_type=machine_type)
    assert shape_of(typed) not in (shape_of(POOL), shape_of(replace(POOL, machine_type="huge")))


def test_a_pool_without_a_machine_type_keeps_its_hash() -> None:
    """Else all its VMs would end when vmrunner is upgraded."""
    assert shape_of(POOL) == "2788612bb8317618"


def test_a_pool_of_a_type_takes_that_alone() -> None:
    large, typed = replace(OFFER, machine_type="Large"), replace(POOL, machine_type="large")
    assert [of_type(POOL, offer) for offer in (OFFER, large)] == [True, True]
    assert [of_type(typed, offer) for offer in (OFFER, large)] == [False, True]


def test_a_build_that_would_get_no_such_machine_has_none() -> None:
    large, typed = replace(OFFER, machine_type="large"), replace(POOL, machine_type="large")
    pool = Pool(spec=typed, shape=shape_of(typed), revision=1)
    row = instance(offer=large, shape=pool.shape)
    assert serves(pool.spec, spec())
    assert not claimable(row, pool, spec(), [OFFER], 200.0)
    assert claimable(row, pool, spec(), [OFFER, large], 200.0)


# --- when it dies -------------------------------------------------------------------------------


def test_a_vm_that_waits_is_never_stuck() -> None:
    limits = Limits()
    late = 100.0 + limits.ready + 1
    assert marks(late, [instance()], 0.0, {}, limits, {}) == ()
    claimed = instance(build="b-1", claimed_at=100.0, due=9_000.0)
    (mark,) = marks(late, [claimed], 0.0, {}, limits, {})
    assert mark.reason is Death.STUCK


def test_a_claimed_vm_expires_when_its_build_must_be_over() -> None:
    claimed = instance(build="b-1", state=InstanceState.BUSY, due=300.0)
    assert marks(299.0, [claimed], 0.0, {}, Limits(), {}) == ()
    (mark,) = marks(301.0, [claimed], 0.0, {}, Limits(), {})
    assert mark.reason is Death.EXPIRED


def test_nobody_fills_its_pool() -> None:
    row = instance()
    assert pool_death(row, HERE, forgotten=False, instance_now=200.0) is None
    assert pool_death(row, HERE, forgotten=True, instance_now=200.0) is Death.DONE
    assert pool_death(row, None, forgotten=False, instance_now=200.0) is Death.DONE
    drained = replace(HERE, draining=True)
    assert pool_death(row, drained, forgotten=False, instance_now=200.0) is Death.DONE
    idle = 100.0 + POOL.idle + POOL_BOOT
    assert pool_death(row, HERE, forgotten=False, instance_now=idle) is Death.DONE
    booting = replace(row, state=InstanceState.BOOTING)
    assert pool_death(booting, HERE, forgotten=False, instance_now=idle) is None
    assert lifetime(POOL) == POOL.idle + POOL.ttl + POOL_BOOT


def test_the_place_of_a_vm_just_claimed_is_filled_later() -> None:
    """Its build starts first; of two headroom that are empty only that one waits."""
    assert fill(given_(1, claimed=1)).make == 0
    assert fill(given_(0, claimed=1)).make == 1
    assert fill(given_(0, want=1, claimed=1)).empty is EmptyReason.MAKING
