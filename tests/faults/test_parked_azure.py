"""Pools of parked VMs in Azure, over HTTP: whatever a deallocation or a start comes to, builds run
and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.azure_side import AzureSide
from tests.faults.crash_points import nothing_of_ours
from tests.faults.world import TTL, World
from vmrunner.model import Instance, InstanceState, Kind, PoolKind, PoolSpec, Result, Start
from vmrunner.testing.localazure import (
    LOST_ANSWER,
    NO_ROOM_IN_ZONE,
    THROTTLED,
)

POOL = PoolSpec(
    name="fast",
    provider="azure",
    kind=PoolKind.PARKED,
    container="c",
    size=1,
    ttl=TTL,
    idle=150.0,
)


@pytest.fixture
def side() -> type[AzureSide]:
    return AzureSide


@pytest.fixture
def world(make_http: Callable[..., World]) -> World:
    world = make_http()
    world.cloud.guard(world.truth.installation, "build, pool, image")
    return world


def parked(world: World) -> list[Instance]:
    return [r for r in world.truth.instances.open() if r.state is InstanceState.PARKED]


def filled(world: World) -> Instance:
    world.run(200, until=lambda: bool(parked(world)))
    (row,) = parked(world)
    return row


def built(world: World) -> Instance:
    """A build, which succeeds at its first attempt; its VM."""
    build = world.submit()
    world.run(300, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    return world.truth.instances.get(done.instance or "")


def drained(world: World) -> None:
    world.judge = None
    world.truth.pools.drain("fast", "test", world.clock())
    world.settle()
    nothing_of_ours(world)


def fare(world: World, action: str, trouble: Any) -> None:
    """The next request for it does."""
    left = [trouble]
    world.judge = lambda call: left.pop() if call.provider == action and left else None


def test_a_build_wakes_the_vm_that_waits_deallocated(world: World) -> None:
    world.node(pools={"fast": POOL})
    waits = filled(world)
    (machine,) = [m for m in world.ours() if m.alive and m.ref.kind is Kind.INSTANCE]
    assert (machine.local.state, machine.local.billed) == ("deallocated", False)
    row = built(world)
    assert (row.id, row.start) == (waits.id, Start.PARKED)
    drained(world)


@pytest.mark.parametrize("trouble", [LOST_ANSWER, THROTTLED])
@pytest.mark.parametrize("action", ["virtualMachines.deallocate", "virtualMachines.start"])
def test_whatever_becomes_of_a_request_a_build_runs(
    world: World, action: str, trouble: Any
) -> None:
    fare(world, action, trouble)
    world.node(pools={"fast": POOL})
    filled(world)
    built(world)
    drained(world)


def test_a_zone_without_room_costs_no_attempt(world: World) -> None:
    world.node(pools={"fast": POOL})
    waits = filled(world)
    fare(world, "virtualMachines.start", NO_ROOM_IN_ZONE)
    assert built(world).id != waits.id
    drained(world)


def test_without_a_guard_that_knows_pools_none_is_filled(make_http: Callable[..., World]) -> None:
    world = make_http()
    world.cloud.guard(world.truth.installation, "build, image")
    world.node(pools={"fast": POOL})
    world.run(60)
    assert world.truth.instances.open() == []
