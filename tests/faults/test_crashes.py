"""kill -9 before and after every effect, and what the next process makes of it.

The places are enumerated, not sampled: a first run counts them, then one world a place.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import LOG, World
from vmrunner.model import Build, BuildState, Reason, Result
from vmrunner.providers.fake import Fault

Make = Callable[..., World]


def flow_run(world: World) -> Build:
    return world.submit()


def flow_lost_response(world: World) -> Build:
    world.fail("create", Fault.LOST_RESPONSE)
    return world.submit()


def flow_next_offer(world: World) -> Build:
    world.fail("create", Fault.NO_CAPACITY)
    return world.submit(spot=True)


def flow_failed_delete(world: World) -> Build:
    world.fail("delete", Fault.LOST_RESPONSE, Fault.LOST_REQUEST)
    return world.submit()


FLOWS = [flow_run, flow_lost_response, flow_next_offer, flow_failed_delete]


def places(make_world: Make, flow: Callable[[World], Build]) -> list[str]:
    """Every place where the first process can crash in this flow."""
    world = make_world()
    flow(world)
    node = world.node()
    world.settle()
    assert len(node.points) > 20
    return node.points


@pytest.mark.parametrize("pause", [0, 30], ids=["at-once", "after-a-while"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f.__name__)
def test_a_crash_anywhere_loses_doubles_and_leaves_nothing(
    make_world: Make, flow: Callable[[World], Build], pause: int
) -> None:
    """Promises 1 to 5 and 7: the next engine picks the build up and finishes it."""
    for at, place in enumerate(places(make_world, flow)):
        world = make_world()
        build = flow(world)
        world.node(crash_at=at)
        world.run(100, until=lambda w=world: w.nodes[0].dead)
        assert world.nodes[0].dead, place
        world.run(pause)
        world.node()
        world.settle()
        done = world.truth.builds.get(build.id)
        assert done.result is Result.SUCCESS, (place, done)
        log = b"".join(chunk.data for chunk in world.truth.logs.read(build.id))
        assert log == LOG, place
        world.close()


@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f.__name__)
def test_after_a_crash_and_a_long_silence_only_deadlines_speak(
    make_world: Make, flow: Callable[[World], Build]
) -> None:
    """All engines are away until long past the deadline: then nothing is left within G."""
    for at, place in enumerate(places(make_world, flow)):
        world = make_world()
        build = flow(world)
        world.node(crash_at=at)
        world.run(100, until=lambda w=world: w.nodes[0].dead)
        world.clock.advance(1000)
        world.node()
        world.settle()
        assert world.truth.builds.get(build.id).finished, place
        world.close()


def test_a_crash_of_a_foreground_process_ends_its_build(make_world: Make) -> None:
    """The submitter is the engine's own process: with it the build dies, wherever it was."""
    for at, place in enumerate(places(make_world, flow_run)):
        world = make_world()
        first = world.node(crash_at=at)
        build = world.submit(submitter=first.process.pid)
        world.living.clear()  # it lives as a node
        world.run(100, until=lambda w=world: w.nodes[0].dead)
        second = world.node()
        world.settle()
        done = world.truth.builds.get(build.id)
        ended = place.startswith(("before builds.finish", "before logs")) is False
        assert done.reason in (Reason.OWNER_GONE, Reason.EXIT_CODE), place
        assert ended or done.reason is Reason.OWNER_GONE
        assert not second.dead
        world.close()


def test_reap_alone_ends_what_a_dead_process_left(make_world: Make) -> None:
    """`vmrunner reap` from cron, and no engine ever again."""
    for at, place in enumerate(places(make_world, flow_run)):
        world = make_world()
        first = world.node(crash_at=at)
        build = world.submit(submitter=first.process.pid)
        world.living.clear()
        world.run(100, until=lambda w=world: w.nodes[0].dead)
        for _ in range(40):
            cron = world.node()
            cron.reaping.run()
            cron.close()
            world.check()
            world.clock.advance(10)
        assert not [m for m in world.ours() if m.alive], place
        assert not world.truth.instances.open(), place
        row = world.truth.builds.get(build.id)
        assert row.finished or row.state is BuildState.QUEUED or row.attempt, place
        world.close()


def test_two_engines_share_one_ledger(make_world: Make) -> None:
    world = make_world(max_instances=4)
    builds = [world.submit() for _ in range(12)]
    world.node()
    world.node()
    world.settle()
    assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds)
    assert len(world.cloud.machines) == len(builds)


def test_two_engines_and_one_dies_anywhere(make_world: Make) -> None:
    for at in range(0, 150, 7):
        world = make_world()
        builds = [world.submit() for _ in range(3)]
        world.node(crash_at=at)
        world.node()
        world.settle()
        assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds), at
        world.close()
