"""Arming and sealing in whole lives on the fake cloud: what is armed after birth, disarmed after
death, and switched off before a step runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.node import Node
from tests.faults.world import World
from vmrunner.model import BuildRecord, BuildState, Kind, Reason, Result
from vmrunner.providers.fake import FakeMachine, Fault

Make = Callable[..., World]


def armed(world: World) -> list[FakeMachine]:
    return list(world.cloud.things(Kind.SCHEDULE))


def in_state(world: World, build: BuildRecord, state: BuildState) -> Callable[[], bool]:
    return lambda: world.truth.builds.get(build.id).state is state


def troubles(world: World, build: BuildRecord) -> list[str]:
    events = world.truth.events.list(build.id)
    return [str(event.data["error"]) for event in events if event.kind == "trouble"]


@pytest.fixture
def world(make_world: Make) -> World:
    made = make_world()
    made.cloud.arms, made.cloud.seals = 30.0, True
    return made


def test_a_vm_is_armed_once_and_disarmed_when_dead(world: World) -> None:
    build = world.submit()
    node = world.node(reaps=False)
    world.run(60, until=in_state(world, build, BuildState.RUNNING))
    (schedule,) = armed(world)
    (machine,) = world.ours()
    assert schedule.armed is machine
    world.run(60, until=lambda: node.engine.idle)
    assert schedule.delete_accepted is not None
    assert machine.died_at is not None
    assert schedule.delete_accepted >= machine.died_at
    assert world.cloud.counts["arm"] == 1
    assert world.cloud.counts["delete"] == 2  # the VM, and then what was armed
    world.run(5)
    world.nothing_left()


def test_who_takes_over_arms_the_same_and_disarms_it(world: World) -> None:
    world.build_seconds = 20
    build = world.submit()
    first = world.node(reaps=False)
    world.run(60, until=in_state(world, build, BuildState.RUNNING))
    first.kill()
    second = world.node(reaps=False)
    world.run(60, until=lambda: second.engine.idle)
    world.run(5)
    assert len(armed(world)) == 1
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    world.nothing_left()


@pytest.mark.parametrize("point", ["before cloud.arm", "after cloud.arm"])
def test_killed_at_the_arming_the_next_engine_arms(world: World, point: str) -> None:
    world.build_seconds = 20
    world.submit()
    first = world.node(reaps=False)
    world.dice = lambda node, effect: node is first and effect == point
    world.run(60, until=lambda: first.dead)
    assert len(armed(world)) == (point == "after cloud.arm")
    world.dice = None
    second = world.node(reaps=False)
    world.run(60, until=lambda: second.engine.idle)
    world.run(5)
    assert len(armed(world)) == 1
    world.nothing_left()


def test_what_a_crash_leaves_armed_is_swept_after_its_vm(world: World) -> None:
    world.submit()
    first = world.node(reaps=False)
    deletes = []

    def dies(node: Node, point: str) -> bool:
        """At the second delete: the first is the VM's."""
        deletes.extend([point] if point == "before cloud.delete" else [])
        return node is first and len(deletes) == 2

    world.dice = dies
    world.run(60, until=lambda: first.dead)
    world.dice = None
    (schedule,), (machine,) = armed(world), list(world.ours())
    assert machine.died_at is not None
    assert world.truth.instances.open() == []
    assert schedule.alive
    world.node(drives=False)
    world.run(2 * world.sweep_seconds)
    assert not schedule.alive


def test_a_sweep_never_deletes_the_schedule_of_a_living_vm(
    world: World,
) -> None:
    """It is what ends the VM when nothing else does."""
    world.cloud.arms = 300.0
    world.build_seconds = 1e9
    build = world.submit(ttl=100, timeout=60)
    first = world.node(reaps=False)
    world.run(60, until=in_state(world, build, BuildState.RUNNING))
    first.kill()
    (schedule,), (machine,) = armed(world), list(world.ours())
    machine.undeletable = True
    world.node(drives=False)
    assert machine.order is not None
    while world.clock() < machine.order.deadline + 290:
        world.nodes[-1].tick()
        world.clock.advance(5)
    assert schedule.died_at is None
    assert machine.died_at is None
    world.clock.advance(10)
    world.cloud.settle()
    assert machine.died_at is not None
    assert schedule.died_at is not None


def test_refused_arming_is_told_once_retried_and_ends_no_build(
    world: World,
) -> None:
    world.build_seconds = 40
    world.fail("arm", *[Fault.CREDENTIALS] * 3)
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert world.cloud.counts["arm"] == 4
    assert len(troubles(world, build)) == 1
    assert len(armed(world)) == 1


def test_no_step_runs_before_the_metadata_is_off(world: World) -> None:
    """The played guest refuses to start otherwise."""
    world.fail("seal", Fault.LOST_REQUEST, Fault.THROTTLE, Fault.SERVER_ERROR)
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert world.cloud.counts["seal"] == 4
    assert world.started == {(build.id, 1): 1}


def test_where_it_may_not_be_switched_off_no_step_runs(world: World) -> None:
    world.fail("seal", Fault.CREDENTIALS)
    build = world.submit()
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.CREDENTIALS)
    assert not world.started
    assert not done.steps_started


def test_who_takes_over_running_steps_seals_no_second_time(world: World) -> None:
    world.build_seconds = 20
    build = world.submit()
    first = world.node(reaps=False)
    world.run(60, until=in_state(world, build, BuildState.RUNNING))
    first.kill()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert world.cloud.counts["seal"] == 1
