"""kill -9 before and after every effect: who owns what then, and who is left to see to it. All
scenarios, and all that may come on top, are in `test_points`."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.world import World
from vmrunner.model import BuildState, Reason, Result

Make = Callable[..., World]


def crash_points(make_world: Make) -> list[str]:
    """Every place where the first process can crash."""
    world = make_world()
    world.submit()
    node = world.node()
    world.settle()
    assert len(node.points) > 20
    return node.points


def test_a_crash_of_a_foreground_process_ends_its_build(make_world: Make) -> None:
    """The submitter is the engine's own process: with it the build dies, wherever it was."""
    for at, place in enumerate(crash_points(make_world)):
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
    for at, place in enumerate(crash_points(make_world)):
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
