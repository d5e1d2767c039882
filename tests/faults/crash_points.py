"""The points where the process of a scenario can die, one world with a death at each, and what must
be true when another process has gone on."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.scenarios import Scenario, begin
from tests.faults.store_side import settle_store
from tests.faults.world import TTL, World
from vmrunner.model import MORTAL, BuildRecord
from vmrunner.store.uploader import CLAIM

Make = Callable[..., World]
HOUR = 3600.0


def crash_points(make_world: Make, scenario: Scenario) -> list[str]:
    """Every point where this scenario's process can crash."""
    world = make_world()
    build, node = begin(world, scenario)
    world.run(TTL + 100, until=world.quiet)
    assert not node.dead
    done = world.truth.builds.get(build.id)
    assert done.result in scenario.ends, done
    world.close()
    return node.points


def crashed(make_world: Make, scenario: Scenario, at: int) -> tuple[World, BuildRecord]:
    """A world whose process died at this point."""
    world = make_world()
    build, node = begin(world, scenario, crash_at=at)
    world.run(TTL + 100, until=lambda: node.dead)
    assert node.dead
    return world, build


def finish_elsewhere(
    world: World, scenario: Scenario, build: BuildRecord, *, strict: bool = True
) -> None:
    """Another process goes on; nothing may be left, lost or done twice."""
    if scenario.stores:  # nobody waits for the hold that a dead uploader has on a log
        world.clock.advance(CLAIM)
    world.node(drives=True, stores=scenario.stores)
    world.settle()
    done = world.truth.builds.get(build.id)
    assert done.finished
    assert not strict or done.result in scenario.ends, done
    if strict and scenario.answers:
        assert all(end for caller in world.callers for end in caller.ends.values())
    nothing_of_ours(world)
    if scenario.stores:
        settle_store(world)
    world.check_log(done)
    world.close()


def nothing_of_ours(world: World) -> None:
    """Also what was planted, and disks; and what is another's lives."""
    world.run(HOUR, until=lambda: not _ours(world), step=5.0)
    assert not _ours(world)
    foreign = [m for m in world.cloud.machines.values() if not _is_ours(world, m.tags)]
    assert all(machine.alive for machine in foreign)


def _ours(world: World) -> list[object]:
    return [m for m in world.standing() if _is_ours(world, m.tags)]


def _is_ours(world: World, tags: dict[str, str]) -> bool:
    same = tags.get("vmrunner:installation") == world.truth.installation
    return same and tags.get("vmrunner:role") in MORTAL


class at_point:  # noqa: N801 - read as a word: `with at_point(name)`
    """Say at which point it was."""

    def __init__(self, point: str) -> None:
        self.point = point

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            error.add_note(f"at {self.point}")
