"""Pools: whatever crashes, a VM that waits is claimed once, and dies in time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import LIMITS, TTL, World
from vmrunner.core.lifecycle import FORGOTTEN
from vmrunner.model import (
    Death,
    EmptyReason,
    Instance,
    InstanceState,
    Network,
    PoolKind,
    PoolSpec,
    Reason,
    Result,
    Start,
)
from vmrunner.providers.fake import Fault

Make = Callable[..., World]

POOL = PoolSpec(name="fast", provider="fake", container="c", size=2, ttl=TTL, idle=100.0)


def pools(**changes: Any) -> dict[str, PoolSpec]:
    return {"fast": replace(POOL, **changes)}


def waiting(world: World) -> list[Instance]:
    rows = world.truth.instances.open()
    return [r for r in rows if r.build is None and r.state is InstanceState.READY]


def filled(world: World, count: int = 2) -> None:
    world.run(120, until=lambda: len(waiting(world)) == count)
    assert len(waiting(world)) == count


def drained(world: World) -> None:
    """All ends: nothing is left of builds and pools."""
    world.truth.pools.drain("fast", "test", world.clock())
    world.settle()


def reason(world: World) -> EmptyReason | None:
    (pool,) = world.truth.pools.all()
    return pool.empty_reason


def test_a_pool_is_filled_claimed_and_filled_again(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools())
    filled(world)
    first = {row.id for row in waiting(world)}
    build = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    row = world.truth.instances.get(done.instance or "")
    assert (done.result, row.id in first, row.start) == (Result.SUCCESS, True, Start.HOT)
    assert row.due is not None
    assert row.due < row.deadline
    assert done.epoch == row.epoch or row.epoch == done.epoch + 1
    filled(world)
    drained(world)


def crash_points(make_world: Make) -> list[str]:
    world = make_world()
    node = world.node(pools=pools())
    filled(world)
    build = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    drained(world)
    return node.points


def test_a_crash_anywhere_in_a_pools_life_loses_nothing(make_world: Make) -> None:
    points = crash_points(make_world)
    assert {"before pools.ready", "after pools.claim", "after instances.start"} <= set(points)
    for at, place in enumerate(points):
        world = make_world()
        world.node(pools=pools(), crash_at=at)
        world.run(30, until=lambda w=world: len(waiting(w)) == 2 or w.nodes[0].dead)
        build = world.submit()
        world.run(60, until=lambda w=world: w.nodes[0].dead)
        world.node(pools=pools())
        world.run(60, until=lambda w=world, b=build: w.truth.builds.get(b.id).finished)
        drained(world)
        assert world.truth.builds.get(build.id).result is Result.SUCCESS, place
        world.close()


PARKED = {"kind": PoolKind.PARKED}


def parked(world: World) -> list[Instance]:
    return [r for r in world.truth.instances.open() if r.state is InstanceState.PARKED]


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
        if not any(word in place for word in ("pools", "cloud", "start", "record")):
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
def test_a_wish_that_may_not_have_been_heard_is_said_again(
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


def test_two_engines_claim_no_vm_twice(make_world: Make) -> None:
    world = make_world()
    for _ in range(2):
        world.node(pools=pools(size=4))
    filled(world, 4)
    builds = [world.submit() for _ in range(8)]
    world.run(200, until=lambda: all(world.truth.builds.get(b.id).finished for b in builds))
    drained(world)
    assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds)
    used = [world.truth.builds.get(b.id).instance for b in builds]
    assert len(set(used)) == len(builds)
    assert world.truth.pools.counts(0.0)["fast"].hits >= 4


def test_reap_alone_ends_the_vms_of_a_dead_serve(make_world: Make) -> None:
    """`vmrunner reap` from cron, and no engine ever again."""
    world = make_world()
    node = world.node(pools=pools())
    filled(world)
    node.kill()
    for _ in range(60):
        cron = world.node()
        cron.reaping.run()
        cron.close()
        world.check()
        world.clock.advance(10)
    assert not [m for m in world.ours() if m.alive]
    assert not world.truth.instances.open()


def test_a_pool_that_no_serve_names_is_drained(make_world: Make) -> None:
    world = make_world(limits=replace(LIMITS, max_ttl=7200.0))
    node = world.node(pools=pools(idle=3600.0))
    filled(world)
    node.kill()
    world.node()  # without pools
    world.run(FORGOTTEN + 100, step=5.0, until=lambda: not world.truth.instances.open())
    assert not world.truth.instances.open()


def test_the_highest_revision_of_two_configurations_wins(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(size=1))
    world.run(5)
    world.node(pools=pools(size=3))
    filled(world, 3)
    world.run(60)
    (pool,) = world.truth.pools.all()
    assert (pool.revision, pool.spec.size, len(waiting(world))) == (2, 3, 3)
    drained(world)


def test_another_shape_replaces_all_that_wait(make_world: Make) -> None:
    world = make_world()
    node = world.node(pools=pools())
    filled(world)
    before = {row.id for row in waiting(world)}
    node.engine.context.pools = pools(container="another")
    world.run(
        60, until=lambda: bool(waiting(world)) and not before & {r.id for r in waiting(world)}
    )
    filled(world)
    assert not before & {row.id for row in waiting(world)}
    drained(world)


def test_a_wished_size_holds_until_the_configuration_changes(make_world: Make) -> None:
    world = make_world()
    node = world.node(pools=pools(size=1))
    filled(world, 1)
    world.truth.pools.resize("fast", 3, "ops", world.clock())
    filled(world, 3)
    node.engine.context.pools = pools(size=2)
    filled(world, 2)
    drained(world)


def test_a_claimed_vm_dies_when_its_builds_time_is_over(make_world: Make) -> None:
    """The build never ends; its VM dies at `due`, long before the deadline of its birth."""
    world = make_world()
    world.node(pools=pools())
    filled(world)
    build = world.submit(ttl=60.0, timeout=50)
    world.seconds[build.id] = 10_000.0
    world.run(30, until=lambda: world.truth.builds.get(build.id).instance is not None)
    row = world.truth.instances.get(world.truth.builds.get(build.id).instance or "")
    world.run(200, until=lambda: world.truth.builds.get(build.id).finished)
    assert row.due is not None
    assert world.clock() <= row.due + 30 < row.deadline
    assert world.truth.builds.get(build.id).reason is Reason.DEADLINE
    drained(world)


def test_a_vm_that_ends_before_the_build_is_not_claimed(make_world: Make) -> None:
    world = make_world()
    world.node(pools=pools(ttl=60.0))
    filled(world)
    build = world.submit(ttl=500.0)
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    row = world.truth.instances.get(world.truth.builds.get(build.id).instance or "")
    assert row.pool is None
    drained(world)


@pytest.mark.parametrize(
    "changes", [{"container": "d"}, {"network": Network.NONE}, {"privileged": True}, {"cpus": 7}]
)
def test_a_build_equals_the_shape_or_gets_its_own_vm(
    make_world: Make, changes: dict[str, Any]
) -> None:
    world = make_world()
    world.node(pools=pools())
    filled(world)
    build = world.submit(**changes)
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    assert done.result is Result.SUCCESS
    assert world.truth.instances.get(done.instance or "").pool is None
    drained(world)


def test_a_ledger_that_was_set_back_claims_no_vm_twice(make_world: Make) -> None:
    """The copy was made before the claim: it shows the VM as waiting. No VM was born since, by
    which it would be noticed too."""
    world = make_world(max_instances=1)
    node = world.node(pools=pools(size=1))
    filled(world, 1)
    (row,) = waiting(world)
    copy = world.root / "copy.db"
    _backup(world, copy)
    build = world.submit()
    world.run(30, until=lambda: bool(world.truth.builds.get(build.id).steps_started))
    assert world.truth.builds.get(build.id).instance == row.id
    node.kill()
    _restore(world, copy)
    world.node(pools=pools(size=1))
    second = world.submit()
    world.run(90, until=lambda: world.truth.builds.get(second.id).finished)
    assert world.truth.builds.get(second.id).instance != row.id
    world.truth.pools.drain("fast", "test", world.clock())
    world.run(800, step=5.0, until=world.quiet)
    assert not [m for m in world.standing() if m.born_of_us]


def _backup(world: World, to: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(world.root / "ledger.db")) as source,
        contextlib.closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def _restore(world: World, copy: Path) -> None:
    """In place, into the same file: nothing tells but what was noted of the claim."""
    world.truth.close()
    for path in world.root.glob("ledger.db-*"):
        path.unlink()
    (world.root / "ledger.db").write_bytes(copy.read_bytes())
    world.truth = world.opened()
    world.truth.recognise()


def test_builds_that_wait_for_a_place_come_before_the_pool(make_world: Make) -> None:
    world = make_world(max_instances=2)
    world.node(pools=pools())
    filled(world)
    builds = [world.submit(container="d") for _ in range(4)]  # of another shape
    world.run(200, until=lambda: all(world.truth.builds.get(b.id).finished for b in builds))
    assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds)
    filled(world)
    drained(world)


# --- why a pool is empty -----------------------------------------------------------------------


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
