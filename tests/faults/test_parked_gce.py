"""Pools of parked VMs in Compute Engine, over HTTP: whatever a suspension or a resume comes to,
builds run and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.crash_points import nothing_of_ours
from tests.faults.gce_side import TYPE
from tests.faults.world import TTL, World
from vmrunner.model import (
    BuildRecord,
    EmptyReason,
    Instance,
    InstanceState,
    PoolKind,
    PoolSpec,
    Power,
    Result,
    Start,
)
from vmrunner.testing.localgce import (
    AFTER_ALL,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
)

POOL = PoolSpec(
    name="fast",
    provider="google",
    kind=PoolKind.PARKED,
    container="c",
    size=1,
    ttl=TTL,
    idle=150.0,
)


@pytest.fixture
def world(make_gce: Callable[..., World]) -> World:
    world = make_gce()
    world.cloud.guard(world.truth.installation, "build, pool, image")
    world.cloud.local.suspend_seconds = 20.0
    return world


def parked(world: World) -> list[Instance]:
    return [r for r in world.truth.instances.open() if r.state is InstanceState.PARKED]


def filled(world: World) -> Instance:
    world.run(200, until=lambda: bool(parked(world)))
    (row,) = parked(world)
    return row


def built(world: World) -> tuple[BuildRecord, Instance]:
    build = world.submit()
    world.run(300, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    return done, world.truth.instances.get(done.instance or "")


def drained(world: World) -> None:
    world.judge = None
    world.truth.pools.drain("fast", "test", world.clock())
    world.settle()
    nothing_of_ours(world)


def test_a_build_wakes_the_vm_that_waits_suspended(world: World) -> None:
    world.node(pools={"fast": POOL})
    waits = filled(world)
    (machine,) = world.ours()
    assert machine.local.state == "SUSPENDED"
    done, row = built(world)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    assert (row.id, row.start) == (waits.id, Start.PARKED)
    assert row.address is not None
    assert waits.address is not None
    assert row.address != waits.address  # what it was lent went with the suspension
    drained(world)


@pytest.mark.parametrize("verb", ["suspend", "resume"])
@pytest.mark.parametrize(
    "fate", [LOST_REQUEST, LOST_ANSWER, AFTER_ALL, INTERNAL, THROTTLED], ids=range(5)
)
def test_a_wish_that_may_be_lost_is_said_again(world: World, verb: str, fate: Any) -> None:
    left = [fate, fate]
    world.judge = lambda call: left.pop() if call.provider == f"instances.{verb}" and left else None
    world.node(pools={"fast": POOL})
    waits = filled(world)
    done, row = built(world)
    assert (done.result, done.attempt, row.id) == (Result.SUCCESS, 1, waits.id)
    drained(world)


@pytest.mark.parametrize("late", [False, True], ids=["zone", "quota"])
def test_a_wake_without_room_costs_no_attempt(world: World, late: bool) -> None:
    world.node(pools={"fast": POOL})
    waits = filled(world)
    local, left = world.cloud.local, [QUOTA_LATER]
    if late:
        world.judge = lambda call: (
            left.pop() if call.provider == "instances.resume" and left else None
        )
    else:
        local.dry.add((TYPE, waits.offer.place, "on-demand"))
        world.when(lambda: local.count("instances.resume") > 0, local.dry.clear)
    done, row = built(world)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    assert row.id != waits.id
    drained(world)


def test_a_parking_that_comes_to_nothing_ends_its_vm(world: World) -> None:
    left = [STOCKOUT]
    world.judge = lambda call: left.pop() if call.provider == "instances.suspend" and left else None
    world.node(pools={"fast": POOL})
    waits = filled(world)
    assert len(list(world.ours())) == 2
    assert built(world)[1].id == waits.id
    drained(world)


@pytest.mark.parametrize("roles", ["build, image", None], ids=["older", "none"])
def test_without_a_guard_for_pools_none_is_filled(
    make_gce: Callable[..., World], roles: str | None
) -> None:
    world = make_gce()
    if roles is not None:
        world.cloud.guard(world.truth.installation, roles)
    world.node(pools={"fast": POOL})
    world.run(60)
    (pool,) = world.truth.pools.all()
    assert pool.empty_reason is EmptyReason.GUARD
    assert not list(world.ours())


def test_the_reaper_ends_a_parked_vm_of_a_dead_serve(world: World) -> None:
    """Nothing of the cloud's own does: its deadline went with the suspension."""
    world.cloud.local.deadline_late = 0.0
    node = world.node(pools={"fast": POOL})
    row = filled(world)
    node.kill()
    (machine,) = world.ours()
    world.clock.advance(row.deadline + 1 - world.clock())
    world.cloud.settle()
    assert machine.local.state == "SUSPENDED"
    world.node(drives=False)
    world.run(60)
    assert machine.power is Power.DEAD
    nothing_of_ours(world)
