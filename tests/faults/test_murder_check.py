"""The check of promise 2: it asks what a VM was, never what its killer wrote of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.broken import Broken
from tests.faults.pool_worlds import drained, filled, pools, waiting
from tests.faults.world import World
from vmrunner.model import Death, Instance
from vmrunner.providers.fake import Fault

Make = Callable[..., World]


def ended(world: World, row: Instance, death: Death) -> None:
    """Somebody writes that it must die, and deletes it."""
    marked = world.truth.instances.mark_deleting(
        row.id, seen_epoch=row.epoch, death=death, now=world.clock()
    )
    assert marked is not None
    assert marked.ref is not None
    world.provider().delete([marked.ref])


@pytest.mark.parametrize("death", [Death.DONE, Death.STUCK, Death.CANCELLED])
def test_a_pools_vm_that_waits_may_not_be_killed(make_world: Make, death: Death) -> None:
    world = make_world()
    world.node(pools=pools(idle=300.0))
    filled(world)
    world.run(3)
    with pytest.raises(Broken, match="2 no murder"):
        ended(world, waiting(world)[0], death)


@pytest.mark.parametrize("why", ["drained", "smaller", "another shape", "forgotten"])
def test_what_its_pool_needs_no_more_may(make_world: Make, why: str) -> None:
    world = make_world()
    node = world.node(pools=pools(idle=300.0))
    filled(world)
    world.run(3)
    row = waiting(world)[0]
    node.kill()
    if why == "drained":
        world.truth.pools.drain("fast", "ops", world.clock())
    elif why == "smaller":
        world.truth.pools.resize("fast", 1, "ops", world.clock())
        world.check()
    elif why == "another shape":
        world.truth.pools.declare(pools(container="d"), "ops", world.clock())
    else:
        world._named.clear()
    ended(world, row, Death.DONE)
    world.truth.pools.drain("fast", "ops", world.clock())
    world.node()
    world.settle()


def test_a_build_that_works_is_not_stuck(make_world: Make) -> None:
    world = make_world()
    world.node()
    build = world.submit()
    world.seconds[build.id] = 100.0
    world.run(80, until=lambda: False)
    (row,) = world.truth.instances.list(build=build.id)
    with pytest.raises(Broken, match="2 no murder"):
        ended(world, row, Death.STUCK)


def test_what_was_never_ready_may_be_given_up(make_world: Make) -> None:
    world = make_world()
    world.warm_up_error = "no space left on device"
    world.node(pools=pools(size=1))
    world.run(30, until=lambda: bool(world.kills))
    assert world.kills
    drained(world)


@pytest.mark.parametrize("refused", [True, False])
def test_what_is_born_late_of_a_refused_create_may(make_world: Make, refused: bool) -> None:
    """Its killer's word that it was refused is not enough: the cloud must have said so."""
    world = make_world()
    node = world.node()
    build = world.submit()
    world.seconds[build.id] = 100.0
    world.fail("create", *[Fault.LOST_RESPONSE] * 2, *[Fault.NO_CAPACITY] * refused)
    world.run(30, until=lambda: any(world.refused if refused else world.ours()))
    node.kill()
    (machine,) = world.ours()
    (row,) = world.truth.instances.list(build=build.id)
    if row.death is None:
        world.truth.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=Death.REFUSED, now=world.clock()
        )
    if refused:
        world.provider().delete([machine.ref])
    else:
        with pytest.raises(Broken, match="2 no murder"):
            world.provider().delete([machine.ref])
