"""Pools of parked VMs in Azure, over HTTP: whatever a deallocation or a start comes to, builds run
and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vmrunner_localclouds.azure import LOST_ANSWER, NO_ROOM_IN_ZONE, THROTTLED

from tests.faults.azure_side import AzureSide
from tests.faults.pool_worlds import built, emptied, one_parked, parked_pool
from tests.faults.world import World, once
from vmrunner.model import Kind, Start

POOLS = parked_pool("azure")


@pytest.fixture
def side() -> type[AzureSide]:
    return AzureSide


@pytest.fixture
def world(make_http: Callable[..., World]) -> World:
    world = make_http()
    world.cloud.guard(world.truth.installation, "build, pool, image")
    return world


def test_a_build_wakes_the_vm_that_waits_deallocated(world: World) -> None:
    world.node(pools=POOLS)
    waits = one_parked(world)
    (machine,) = [m for m in world.ours() if m.alive and m.ref.kind is Kind.INSTANCE]
    assert (machine.local.state, machine.local.billed) == ("deallocated", False)
    row = built(world)
    assert (row.id, row.start) == (waits.id, Start.PARKED)
    emptied(world)


@pytest.mark.parametrize("trouble", [LOST_ANSWER, THROTTLED])
@pytest.mark.parametrize("action", ["virtualMachines.deallocate", "virtualMachines.start"])
def test_whatever_becomes_of_a_request_a_build_runs(
    world: World, action: str, trouble: Any
) -> None:
    once(world, action, trouble)
    world.node(pools=POOLS)
    one_parked(world)
    built(world)
    emptied(world)


def test_a_zone_without_room_costs_no_attempt(world: World) -> None:
    world.node(pools=POOLS)
    waits = one_parked(world)
    once(world, "virtualMachines.start", NO_ROOM_IN_ZONE)
    assert built(world).id != waits.id
    emptied(world)


def test_without_a_guard_that_knows_pools_none_is_filled(make_http: Callable[..., World]) -> None:
    world = make_http()
    world.cloud.guard(world.truth.installation, "build, image")
    world.node(pools=POOLS)
    world.run(60)
    assert world.truth.instances.open() == []
