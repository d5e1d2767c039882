"""Pools of parked VMs in Compute Engine, over HTTP: whatever a suspension or a resume comes to,
builds run and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vmrunner_localclouds.gce import (
    AFTER_ALL,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
)

from tests.faults.crash_points import nothing_of_ours
from tests.faults.gce_side import TYPE
from tests.faults.pool_worlds import built, emptied, one_parked, parked_pool
from tests.faults.world import World, once
from vmrunner.model import EmptyReason, Power, Start

POOLS = parked_pool("google")


@pytest.fixture
def world(make_gce: Callable[..., World]) -> World:
    world = make_gce()
    world.cloud.guard(world.truth.installation, "build, pool, image")
    world.cloud.local.suspend_seconds = 20.0
    return world


def test_a_build_wakes_the_vm_that_waits_suspended(world: World) -> None:
    world.node(pools=POOLS)
    waits = one_parked(world)
    (machine,) = world.ours()
    assert machine.local.state == "SUSPENDED"
    row = built(world)
    assert (row.id, row.start) == (waits.id, Start.PARKED)
    assert row.address is not None
    assert waits.address is not None
    assert row.address != waits.address  # what it was lent went with the suspension
    emptied(world)


@pytest.mark.parametrize("verb", ["suspend", "resume"])
@pytest.mark.parametrize(
    "fate", [LOST_REQUEST, LOST_ANSWER, AFTER_ALL, INTERNAL, THROTTLED], ids=range(5)
)
def test_a_wish_that_may_be_lost_is_said_again(world: World, verb: str, fate: Any) -> None:
    once(world, f"instances.{verb}", fate, fate)
    world.node(pools=POOLS)
    waits = one_parked(world)
    row = built(world)
    assert row.id == waits.id
    emptied(world)


@pytest.mark.parametrize("late", [False, True], ids=["zone", "quota"])
def test_a_wake_without_room_costs_no_attempt(world: World, late: bool) -> None:
    world.node(pools=POOLS)
    waits = one_parked(world)
    local = world.cloud.local
    if late:
        once(world, "instances.resume", QUOTA_LATER)
    else:
        local.dry.add((TYPE, waits.offer.place, "on-demand"))
        world.when(lambda: local.count("instances.resume") > 0, local.dry.clear)
    row = built(world)
    assert row.id != waits.id
    emptied(world)


def test_a_parking_that_comes_to_nothing_ends_its_vm(world: World) -> None:
    once(world, "instances.suspend", STOCKOUT)
    world.node(pools=POOLS)
    waits = one_parked(world)
    assert len(list(world.ours())) == 2
    assert built(world).id == waits.id
    emptied(world)


@pytest.mark.parametrize("roles", ["build, image", None], ids=["older", "none"])
def test_without_a_guard_for_pools_none_is_filled(
    make_gce: Callable[..., World], roles: str | None
) -> None:
    world = make_gce()
    if roles is not None:
        world.cloud.guard(world.truth.installation, roles)
    world.node(pools=POOLS)
    world.run(60)
    (pool,) = world.truth.pools.all()
    assert pool.empty_reason is EmptyReason.GUARD
    assert not list(world.ours())


def test_the_reaper_ends_a_parked_vm_of_a_dead_serve(world: World) -> None:
    """Nothing of the cloud's own does: its deadline went with the suspension."""
    world.cloud.local.deadline_late = 0.0
    node = world.node(pools=POOLS)
    row = one_parked(world)
    node.kill()
    (machine,) = world.ours()
    world.clock.advance(row.deadline + 1 - world.clock())
    world.cloud.settle()
    assert machine.local.state == "SUSPENDED"
    world.node(drives=False)
    world.run(60)
    assert machine.power is Power.DEAD
    nothing_of_ours(world)
