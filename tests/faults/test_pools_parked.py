"""VMs of pools that are stopped to wait: woken once, never lost, never left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.pool_worlds import PARKED, drained, parked, pools, reason
from tests.faults.world import World
from vmrunner.model import Death, EmptyReason, Result, Start
from vmrunner.providers.fake import Fault

Make = Callable[..., World]


def test_a_parked_vm_is_woken_for_its_build(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(**PARKED))
    world.run(120, until=lambda: len(parked(world)) == 2)
    assert all(m.stopped for m in world.ours() if m.alive)
    build = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    row = world.truth.instances.get(done.instance or "")
    assert (done.result, row.start, done.attempt) == (Result.SUCCESS, Start.PARKED, 1)
    drained(world)


def test_a_refused_wake_is_no_attempt(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(size=1, **PARKED))
    world.run(120, until=lambda: len(parked(world)) == 1)
    world.fail("wake", Fault.NO_CAPACITY)
    build = world.submit()
    world.run(120, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    drained(world)


def test_a_crash_anywhere_in_a_parked_vms_life_loses_nothing(make_world: Make) -> None:
    def lived(world: World, build: Any) -> None:
        world.run(60, until=lambda: world.truth.builds.get(build.id).finished)

    world = make_world()
    node = world.node(pools=pools(size=1, **PARKED))
    world.run(120, until=lambda: len(parked(world)) == 1)
    lived(world, world.submit())
    drained(world)
    points = node.points
    assert {"before pools.park", "after cloud.park", "after cloud.wake"} <= set(points)
    for at, place in enumerate(points):
        if not any(part in place for part in ("pools", "cloud", "start", "record")):
            continue  # the rest is as of one that is hot
        world = make_world()
        world.node(pools=pools(size=1, **PARKED), crash_at=at)
        world.run(60, until=lambda w=world: bool(parked(w)) or w.nodes[0].dead)
        build = world.submit()
        world.run(60, until=lambda w=world: w.nodes[0].dead)
        world.node(pools=pools(size=1, **PARKED))
        lived(world, build)
        drained(world)
        assert world.truth.builds.get(build.id).result is Result.SUCCESS, place
        world.close()


@pytest.mark.parametrize("method", ["park", "wake"])
@pytest.mark.parametrize("fault", [Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.THROTTLE])
def test_a_wish_that_may_be_unheard_is_said_again(
    make_world: Make, method: str, fault: Fault
) -> None:
    world = make_world()
    world.node(pools=pools(size=1, **PARKED))
    world.fail(method, fault, fault)
    world.run(120, until=lambda: len(parked(world)) == 1)
    build = world.submit()
    world.run(120, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    drained(world)


def test_what_cannot_be_parked_is_not_made_again_and_again(make_world: Make) -> None:
    world = make_world()
    world.fail("park", *[Fault.BAD_ORDER] * 50)
    world.node(pools=pools(size=1, **PARKED))
    world.run(500)
    assert len(world.cloud.machines) == 1
    assert reason(world) is EmptyReason.REFUSED
    drained(world)


def test_what_does_not_park_or_wake_is_stuck(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(size=1, **PARKED))
    world.run(120, until=lambda: len(parked(world)) == 1)
    world.cloud.wake = lambda machine: None  # type: ignore[method-assign]
    build = world.submit()
    world.run(200, until=lambda: world.truth.builds.get(build.id).attempt > 1)
    rows = world.truth.instances.list(build=build.id)
    assert any(row.death is Death.STUCK for row in rows)
    drained(world)
