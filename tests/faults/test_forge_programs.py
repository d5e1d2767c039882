"""Programs of GARM and GitLab Runner, killed before and after each of their effects: whoever calls
again gets the same VM, and one that nobody asks for any more ends by its deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.faults.crash_points import at_point
from tests.faults.forge_programs import (
    Program,
    garm_create,
    garm_delete,
    gitlab_clean_up,
    gitlab_prepare,
)
from tests.faults.github_side import GithubWorld
from tests.faults.world import TTL
from vmrunner.model import BuildRecord

Make = Callable[..., GithubWorld]
#: What a forge calls for one runner or job: what begins it twice, as after a lost answer.
CALLS = {
    "garm": (
        garm_create("one", {"provider": "fake", "timeout": "60s", "ttl": "120s"}),
        garm_create("one", {"provider": "fake", "timeout": "60s", "ttl": "120s"}),
        garm_delete("one"),
    ),
    "gitlab": (
        gitlab_prepare(1, {"provider": "fake", "ttl": "100s"}),
        gitlab_prepare(1, {"provider": "fake", "ttl": "100s"}),
        gitlab_clean_up(1),
    ),
}
each_forge = pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)


def called(world: GithubWorld, work: Any, **crash: int) -> Program:
    """A program, called and ended."""
    program = Program(world, work, **crash)
    world.run(100, until=lambda: program.ended)
    assert program.ended
    return program


def led(
    world: GithubWorld, calls: Sequence[Any], *, call: int = -1, crash_at: int = 0
) -> list[list[str]]:
    """Make all calls, the one that died there once more; the places of each."""
    world.build_seconds = 1000.0
    points = []
    for number, work in enumerate(calls):
        if number == call:
            assert called(world, work, crash_at=crash_at).dead
        program = called(world, work)
        assert program.answer
        points.append(program.points)
    return points


def only(world: GithubWorld) -> BuildRecord:
    (build,) = world.builds()
    return build


@each_forge
def test_a_program_that_dies_anywhere_starts_no_second_vm(
    make_github: Make, calls: Sequence[Any]
) -> None:
    world = make_github()
    world.node()
    points = led(world, calls)
    world.settle()
    crashes = [(call, at) for call, names in enumerate(points) for at in range(len(names))]
    assert len(crashes) >= 6
    for call, at in crashes:
        with at_point(f"call {call}, {points[call][at]}"):
            world = make_github()
            world.node()
            led(world, calls, call=call, crash_at=at)
            world.settle()
            assert only(world).finished
            assert len(world.cloud.machines) == 1
            world.close()


@each_forge
def test_a_vm_ends_by_its_deadline_when_all_are_dead(
    make_github: Make, calls: Sequence[Any]
) -> None:
    """The program dies after its wish was heard, the engine with the VM up. A reaper is left."""
    world = make_github()
    world.build_seconds = 1000.0
    node = world.node()
    assert called(world, calls[0], crash_at=1).dead
    world.run(60, until=lambda: bool(world.running()))
    assert world.running()
    node.kill()
    reaper = world.node(drives=False)
    world.run(60)
    assert [machine.alive for machine in world.ours()] == [True]
    world.run(2 * TTL, until=lambda: not any(machine.alive for machine in world.ours()))
    assert not any(machine.alive for machine in world.ours())
    assert not reaper.dead
    world.settle()
    assert only(world).cancel is None
