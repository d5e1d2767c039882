"""Pools: whatever crashes, a VM that waits is claimed once, and dies in time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pool_worlds import drained, filled, pools, waiting
from tests.faults.world import LIMITS, World
from vmrunner.core.lifecycle import FORGOTTEN
from vmrunner.engine.pools import POOL_LEASE
from vmrunner.model import Network, Reason, Result, Start

Make = Callable[..., World]


def test_a_pool_is_filled_claimed_and_filled_again(
    make_world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vmrunner.engine")
    world = make_world()
    world.node(pools=pools())
    filled(world)
    first = {row.id for row in waiting(world)}
    build = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    row = world.truth.instances.get(done.instance or "")
    assert (done.result, row.id in first, row.start) == (Result.SUCCESS, True, Start.HOT)
    assert done.id in world.warm, "it speaks over the connection that warmed its VM up"
    assert row.due is not None
    assert row.due < row.deadline
    assert done.epoch == row.epoch or row.epoch == done.epoch + 1
    logged = [vars(r)["fields"] for r in caplog.records if "which waited" in r.getMessage()]
    assert [(fields["build"], fields["instance"], fields["pool"]) for fields in logged] == [
        (build.id, row.id, row.pool)
    ]
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


def test_a_copied_id_of_a_pool_gives_nobody_a_vm(make_world: Make) -> None:
    """Others' machines that carry a waiting VM's tags are neither claimed nor ended with it."""
    world = make_world()
    world.node(pools=pools(size=1))
    filled(world, 1)
    (row,) = waiting(world)
    (ours,) = list(world.ours())
    theirs = [
        world.cloud.plant(ours.ref.scope, tags | {"vmrunner:expires-at": "1"})
        for tags in (
            {"vmrunner:instance": row.id, "vmrunner:pool": "fast"},
            ours.tags | {"vmrunner:installation": "another"},
            ours.tags | {"vmrunner:role": "guard"},
        )
    ]
    build = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    drained(world)
    assert world.truth.builds.get(build.id).instance == row.id
    assert world.truth.instances.get(row.id).ref == ours.ref
    assert all(machine.alive for machine in theirs)


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


def epochs(world: World) -> dict[str, int]:
    return {row.id: row.epoch for row in world.truth.instances.list() if row.pool}


@pytest.mark.parametrize("skew", [45.0, 660.0, -660.0, 86_400.0])
def test_clocks_that_are_apart_empty_no_pool(make_world: Make, skew: float) -> None:
    """Neither does who reaps take a pool for forgotten, nor do two fillers take it from each
    other."""
    world = make_world(limits=replace(LIMITS, max_ttl=7200.0), many_hosts=True)
    world.node(far=True, pools=pools(idle=3600.0))
    world.node(far=True, skew=skew, pools=pools(idle=3600.0))
    filled(world)
    world.run(30, step=1.0)
    before = epochs(world)
    world.run(300, step=5.0)
    assert epochs(world) == before


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_empties_no_pool(make_world: Make, step: float) -> None:
    world = make_world(limits=replace(LIMITS, max_ttl=7200.0))
    node = world.node(pools=pools(idle=3600.0))
    filled(world)
    before = epochs(world)
    node.skew = step
    world.run(200, step=5.0)
    assert epochs(world) == before


def test_a_pools_lease_is_renewed_while_its_holder_lives(make_world: Make) -> None:
    world = make_world()
    for _ in range(2):
        world.node(pools=pools())
    filled(world)
    leases = world.truth.engines
    holders = {name: holder for name, holder in leases.holders().items() if "fast" in name}
    assert holders
    for _ in range(5):
        world.run(POOL_LEASE)
        assert {name: leases.holders()[name] for name in holders} == holders
        for name in holders:
            found = leases.lease(name)
            assert found is not None
            assert found.until > world.clock()
    drained(world)
