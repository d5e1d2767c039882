"""The end of a sandbox's time: by its engine, and by a reaper where none drives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.world import PASS, World
from vmrunner.core.lifecycle import CANCEL_GRACE
from vmrunner.model import BuildState, Reason, Result
from vmrunner.providers.deletion import DELETE_RETRY
from vmrunner.reaper.reap_pass import ReapPass

Make = Callable[..., World]


def test_a_sandbox_ends_with_its_time(make_world: Make) -> None:
    world = make_world()
    build = world.sandbox(seconds=20.0)
    caller = world.call(build, {"c1": 5.0, "c2": 1000.0})
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.SUCCESS, Reason.DEADLINE)
    assert done.hold_until is not None
    assert done.finished_at is not None
    assert 0 <= done.finished_at - done.hold_until <= 3
    assert caller.ends["c1"] is not None
    assert caller.ends["c2"] is None


@pytest.mark.parametrize("is_sandbox", [True, False])
def test_a_reaper_ends_what_nobody_drives(make_world: Make, *, is_sandbox: bool) -> None:
    """A sandbox, which whoever takes it over has time to end; and a VM that is held."""
    world = make_world()
    world.exit_code = 3
    if is_sandbox:
        build, state, grace = (
            world.sandbox(seconds=20.0, ttl=500.0),
            BuildState.RUNNING,
            CANCEL_GRACE,
        )
    else:
        build, state, grace = world.submit(keep_on_failure=20, ttl=500.0), BuildState.HELD, 0.0
    first = world.node(reaps=False)
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is state)
    first.kill()
    world.node(drives=False)
    hold_until = world.truth.builds.get(build.id).hold_until
    assert hold_until is not None
    world.run(hold_until + grace - 1 - world.clock())
    assert [machine.alive for machine in world.ours()] == [True]
    world.run(2 * PASS)
    assert not any(machine.alive for machine in world.ours())
    world.settle()
    done = world.truth.builds.get(build.id)
    sandbox, failed = (Result.SUCCESS, Reason.DEADLINE), (Result.FAILURE, Reason.EXIT_CODE)
    assert (done.result, done.reason) == (sandbox if is_sandbox else failed)


def test_a_reaper_ends_what_a_stopped_engine_owns(make_world: Make) -> None:
    """Its process is there, on this host, and asks nobody for anything."""
    world = make_world()
    build = world.sandbox(seconds=20.0, ttl=500.0)
    first = world.node()
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    first.asleep = True
    world.node(drives=False)
    hold_until = world.truth.builds.get(build.id).hold_until
    assert hold_until is not None
    world.run(hold_until + CANCEL_GRACE + 2 * PASS + DELETE_RETRY - world.clock())
    assert not any(machine.alive for machine in world.ours())
    first.asleep = False
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.SUCCESS, Reason.DEADLINE)


def test_a_sandbox_extended_at_the_last_moment_is_left_alone(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what the reaper read and what it does."""
    world = make_world()
    build = world.sandbox(seconds=20.0, ttl=500.0)
    first = world.node(reaps=False)
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    first.kill()
    world.node(drives=False)
    hold_until = world.truth.builds.get(build.id).hold_until
    assert hold_until is not None

    apply = ReapPass._apply

    def extended(*args: Any, **options: Any) -> None:
        if world.clock() > hold_until + CANCEL_GRACE:
            monkeypatch.setattr(ReapPass, "_apply", apply)
            world.truth.builds.extend(build.id, 200.0, world.clock())
        apply(*args, **options)

    monkeypatch.setattr(ReapPass, "_apply", extended)
    world.run(hold_until + CANCEL_GRACE + 2 * PASS - world.clock())
    assert [machine.alive for machine in world.ours()] == [True]
    world.run(hold_until + 200 + CANCEL_GRACE + 2 * PASS - world.clock())
    assert not any(machine.alive for machine in world.ours())
    world.settle()


def test_a_lost_connection_after_a_take_over_ends_no_command(make_world: Make) -> None:
    """It was followed for long, and the VM answered just now: with a refusal."""
    world = make_world()
    build = world.sandbox(seconds=400.0, ttl=900.0)
    caller = world.call(build, {"c1": 200.0})
    first = world.node()
    world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    world.run(100)
    (machine,) = world.ours()
    reached: list[int] = []

    def drops() -> bool:
        if world.guest(machine).highest > 1:
            reached.append(1)
        return len(reached) == 2  # the first one is refused

    world.drops = drops
    first.kill()
    world.node()
    world.run(200)
    assert len(reached) > 2
    assert caller.ends["c1"] is not None
    world.settle()
