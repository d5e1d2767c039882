"""G is 60 s with the numbers of production: a pass every 30 s, a sweep every 300 s."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import World
from vmrunner.model import BuildRecord, BuildState, Limits
from vmrunner.providers.fake import Fault, Plan

Make = Callable[..., World]


@pytest.fixture
def world(make_world: Make) -> World:
    return make_world(limits=Limits(), pass_seconds=30.0, sweep_seconds=300.0)


def left_alone(world: World) -> BuildRecord:
    """A build that never ends, whose engine is killed while it runs."""
    world.build_seconds = 1e9
    build = world.submit(timeout=300, ttl=570)
    first = world.node(reaps=False)
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    first.kill()
    return build


@pytest.mark.parametrize("offset", range(0, 330, 30))
def test_a_reaper_without_the_ledgers_memory_keeps_to_g(world: World, offset: int) -> None:
    """Nothing but tags tells of the VM, whose deadline falls anywhere between two sweeps."""
    left_alone(world)
    world.lose_ledger()
    world.clock.advance(float(offset))
    world.node(drives=False)
    world.run(700, until=lambda: not world.standing())
    assert not world.standing()


@pytest.mark.parametrize("fault", [Fault.PARTIAL_PAGE, Fault.THROTTLE, Fault.LOST_REQUEST])
def test_a_sweep_of_a_part_is_made_again_within_g(world: World, fault: Fault) -> None:
    """Nothing but tags tells of the VM, and of two sweeps each misses it."""
    left_alone(world)
    world.lose_ledger()
    world.clock.advance(300.0)
    world.fail("sweep", fault)
    world.node(drives=False)
    world.run(200)
    world.fail("sweep", fault)
    world.run(600, until=lambda: not world.standing())
    assert not world.standing()


def test_a_vm_seen_once_dies_though_later_sweeps_read_nothing(
    world: World,
) -> None:
    left_alone(world)
    (machine,) = world.ours()
    assert machine.order is not None
    world.lose_ledger()
    world.node(drives=False)
    world.run(machine.order.deadline - 310 - world.clock())
    world.judge = lambda call: Plan(Fault.LOST_REQUEST) if call.method == "sweep" else None
    world.run(310 + 62, until=lambda: not machine.alive)
    assert not machine.alive


def test_a_protected_vm_past_its_deadline_is_forced_within_g(world: World) -> None:
    """Only a reaper lives, and no lease has run out yet that would let anybody take over."""
    left_alone(world)
    for machine in world.ours():
        machine.protected = True
    world.node(drives=False)
    world.run(700, until=lambda: not world.standing())
    assert not world.standing()


@pytest.mark.parametrize("trouble", ["fails", "reverts"])
def test_a_delete_without_effect_is_asked_again_within_g(world: World, trouble: str) -> None:
    """Also when nothing but tags tells of the VM, and the next sweep is minutes away."""
    left_alone(world)
    world.lose_ledger()
    world.clock.advance(700)
    (machine,) = list(world.ours())
    if trouble == "fails":
        world.fail("delete", Fault.LOST_REQUEST, Fault.SERVER_ERROR)
    else:
        machine.reverts = 1
    world.node(drives=False)
    world.run(200, until=lambda: not world.standing())
    assert not world.standing()


@pytest.mark.parametrize("drives", [True, False])
def test_after_an_outage_past_deadline_a_vm_dies_within_g(world: World, *, drives: bool) -> None:
    """However long deletes have failed by then, and whatever they have backed off to."""
    build = left_alone(world)
    node = world.node(drives=drives)
    world.run(500)
    (machine,) = list(world.ours())
    world.cloud.unreachable.add(machine.ref.scope)

    def out() -> bool:
        world.trouble = world.clock()
        return False

    world.run(760, until=out)  # not right before a sweep
    world.cloud.unreachable.clear()
    world.run(world.limits.limits.grace + 1, until=lambda: not machine.alive)
    assert not machine.alive
    assert not node.dead
    assert world.truth.builds.get(build.id).finished


@pytest.mark.parametrize("seconds", [20.0, 310.0, 350.0, 440.0])
def test_a_cloud_that_answers_again_is_swept_at_once(world: World, seconds: float) -> None:
    """Nothing but tags tells of the VM, and the reaper began while its cloud was out of reach."""
    left_alone(world)
    (machine,) = list(world.ours())
    world.lose_ledger()
    world.clock.advance(150.0)  # its deadline is between two sweeps then
    world.cloud.unreachable.add(machine.ref.scope)
    world.node(drives=False)

    def out() -> bool:
        world.trouble = world.clock()
        return False

    world.run(seconds, until=out)
    world.cloud.unreachable.clear()
    assert machine.order is not None
    end = max(world.clock(), machine.order.deadline) + world.limits.limits.grace
    world.run(end - world.clock(), until=lambda: not machine.alive)
    assert not machine.alive


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
@pytest.mark.parametrize("drives", [True, False])
def test_a_vm_is_held_by_the_clock_of_its_promise(
    world: World, skew: float, *, drives: bool
) -> None:
    """Whoever minds it may have a clock that is a day wrong."""
    world.exit_code = 3
    build = world.submit(timeout=300, ttl=900, keep_on_failure=100)
    first = world.node(reaps=False)
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.HELD)
    first.kill()
    world.node(drives=drives, skew=skew)
    world.run(80)
    (machine,) = list(world.ours())
    assert machine.alive
    world.run(80, until=lambda: not machine.alive)
    assert not machine.alive
