"""Why a pool is empty: each reason, and what makes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.pool_worlds import drained, filled, pools, reason
from tests.faults.world import World
from vmrunner.model import EmptyReason
from vmrunner.providers.fake import Fault

Make = Callable[..., World]


def becomes(world: World, wanted: EmptyReason, seconds: float = 60.0) -> None:
    world.run(seconds, until=lambda: bool(world.truth.pools.all()) and reason(world) is wanted)
    assert reason(world) is wanted


def test_a_pool_of_size_0_says_so(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(size=0))
    becomes(world, EmptyReason.SIZE)


def test_a_pool_that_is_made_says_so(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools())
    becomes(world, EmptyReason.MAKING)
    world.run(60, until=lambda: reason(world) is None)
    assert reason(world) is None
    drained(world)


def test_a_drained_pool_says_so(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools())
    filled(world)
    world.truth.pools.drain("fast", "ops", world.clock())
    becomes(world, EmptyReason.DRAINING)
    drained(world)


def test_a_paused_ledger_says_so(make_world: Make) -> None:
    world = make_world()
    world.truth.pause(True, world.clock())
    world.node(pools=pools())
    becomes(world, EmptyReason.PAUSED)


def test_a_full_house_says_so(make_world: Make) -> None:
    world = make_world(max_instances=1)
    world.node(pools=pools(size=1))
    build = world.submit(container="d")
    world.seconds[build.id] = 60.0
    becomes(world, EmptyReason.MAX_INSTANCES)
    drained(world)


def test_a_pool_whose_day_is_paid_says_so(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(usd_per_day=0.01))
    becomes(world, EmptyReason.BUDGET)
    assert not list(world.ours())
    world.truth.pools.resize("fast", 0, "ops", world.clock())
    becomes(world, EmptyReason.SIZE)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (Fault.NO_CAPACITY, EmptyReason.CAPACITY),
        (Fault.CREDENTIALS, EmptyReason.CREDENTIALS),
        (Fault.BAD_ORDER, EmptyReason.REFUSED),
    ],
)
def test_a_refusal_is_told(make_world: Make, fault: Fault, wanted: EmptyReason) -> None:
    world = make_world()
    world.fail("create", fault, fault)
    world.node(pools=pools())
    becomes(world, wanted)
    filled(world)
    drained(world)


def test_a_vm_that_does_not_come_up_is_told(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(size=1))
    world.run(60, until=lambda: any(m.alive for m in world.ours()))
    for machine in world.ours():
        machine.stopped = True
    becomes(world, EmptyReason.BOOT)
    filled(world, 1)
    drained(world)
