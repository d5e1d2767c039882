"""Two hosts with local VMs under one provider's name: each reaches its own alone, and one may be
gone for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.host_side import HOST_A, HOST_B, Host, Hosts, burn, on
from tests.faults.node import Node
from tests.faults.pool_worlds import drained, filled, pools, waiting
from tests.faults.world import TTL, World
from vmrunner.engine.gone_hosts import DOUBT
from vmrunner.errors import NotFound
from vmrunner.model import Instance, InstanceState, Limits, Reason, Result, Scope

Make = Callable[..., World]


def two_hosts(make_world: Make, **options: Any) -> World:
    """The windows of births are production's: a host is gone for longer than a test's."""
    limits = Limits(max_ttl=7200, deleting=60, orphan_cap=5)
    return make_world(cloud=Hosts, many_hosts=True, limits=limits, **options)


def ready_at(world: World, scope: Scope) -> set[str]:
    return {row.id for row in waiting(world) if row.scope == scope}


def running_on_b(world: World, **options: Any) -> tuple[Node, Node, str]:
    """A build that runs on B, while A lives."""
    a, b = on(world, HOST_A), on(world, HOST_B)
    a.engine.draining = True
    build = world.submit(**options)
    world.seconds[build.id] = 10_000.0
    world.run(60, until=lambda: bool(world.started))
    a.engine.draining = False
    row = row_of(world, build.id)
    assert row.scope == HOST_B
    return a, b, build.id


def row_of(world: World, build: str) -> Instance:
    return world.truth.instances.list(build=build)[0]


def test_each_host_has_a_pool_of_its_own(make_world: Make) -> None:
    world = two_hosts(make_world)
    a = on(world, HOST_A, pools=pools())
    on(world, HOST_B, pools=pools())
    world.run(120, until=lambda: len(waiting(world)) == 4)
    assert len(ready_at(world, HOST_A)) == len(ready_at(world, HOST_B)) == 2
    before = ready_at(world, HOST_A)
    a.kill()
    world.run(90, step=2.0)
    owners = {row.owner for row in waiting(world) if row.scope == HOST_A}
    assert owners == {a.engine.id}, "B cannot reach them: they are no business of its"
    on(world, HOST_A, pools=pools())
    world.run(30)
    assert ready_at(world, HOST_A) == before
    (pool,) = world.truth.pools.all()
    assert {(place.place, place.want) for place in pool.places} == {
        (str(HOST_A), 2),
        (str(HOST_B), 2),
    }
    world.truth.pools.resize("fast", 1, "ops", world.clock())
    world.run(60, until=lambda: len(waiting(world)) == 2)
    assert len(ready_at(world, HOST_A)) == len(ready_at(world, HOST_B)) == 1
    world.truth.pools.drain("fast", "ops", world.clock())
    world.settle()


def test_a_hosts_orders_are_its_own_after_a_crash(make_world: Make) -> None:
    """B fills its own pool meanwhile, and A's next process asks for what the former one wrote."""
    world = two_hosts(make_world)
    a = on(world, HOST_A, pools=pools())
    world.dice = lambda node, point: node is a and point == "after instances.start"
    world.run(10, until=lambda: a.dead)
    world.dice = None
    rows = {row.id for row in world.truth.instances.open()}
    on(world, HOST_B, pools=pools())
    world.run(20)
    on(world, HOST_A, pools=pools())
    world.run(60, until=lambda: len(waiting(world)) == 4)
    assert ready_at(world, HOST_A) == rows
    world.truth.pools.drain("fast", "ops", world.clock())
    world.settle()


@pytest.mark.parametrize("again", [True, False])
def test_builds_of_a_host_gone_for_good_end(make_world: Make, again: bool) -> None:
    world = two_hosts(make_world, max_instances=1)
    _, b, build = running_on_b(world, retry_on_loss=again)
    burn(world, b.host)
    row, ends = row_of(world, build), world.clock() + TTL
    world.run(ends - world.clock(), step=5.0)
    assert world.truth.instances.get(row.id).state is InstanceState.BUSY, "it may live until E"
    world.seconds[build] = 5.0
    done = lambda: world.truth.builds.get(build).finished  # noqa: E731
    world.run(2 * DOUBT, step=5.0, until=done)
    ended = world.truth.builds.get(build)
    assert (ended.result, ended.reason) == (
        (Result.SUCCESS, Reason.EXIT_CODE) if again else (Result.ERROR, Reason.VM_LOST)
    )
    assert again or "host-b" in ended.message
    closed = world.truth.instances.get(row.id)
    assert closed.state is InstanceState.GONE
    with pytest.raises(NotFound):
        world.truth.instances.access(row.id)
    fresh = world.submit()
    world.run(60, until=lambda: world.truth.builds.get(fresh.id).finished)
    assert world.truth.builds.get(fresh.id).result is Result.SUCCESS, "its place is free"
    world.settle()


def test_a_wish_ends_a_build_whose_host_is_gone(make_world: Make) -> None:
    """At once, as soon as that is known; the row of its VM waits until that cannot live."""
    world = two_hosts(make_world)
    _, b, build = running_on_b(world)
    burn(world, b.host)
    world.truth.builds.request_cancel(build, Reason.USER, world.clock())
    world.run(100, step=2.0, until=lambda: world.truth.builds.get(build).finished)
    assert world.truth.builds.get(build).result is Result.CANCELLED
    assert row_of(world, build).state is InstanceState.DELETING
    world.run(2 * DOUBT, step=5.0, until=lambda: not world.truth.instances.open())
    world.settle()


def test_a_host_that_comes_back_finds_nothing_doubled(make_world: Make) -> None:
    """It slept: its VM ends as it wakes, and its process is told that the build is another's."""
    world = two_hosts(make_world)
    _, b, build = running_on_b(world, retry_on_loss=True)
    b.host.off = True
    world.seconds[build] = 5.0
    done = lambda: world.truth.builds.get(build).finished  # noqa: E731
    world.run(TTL + 2 * DOUBT, step=5.0, until=done)
    assert world.truth.builds.get(build).result is Result.SUCCESS
    b.host.off, b.awake_since = False, world.clock()
    world.run(60)
    assert world.truth.builds.get(build).attempt == 2
    world.settle()


def test_a_host_back_with_an_early_clock_ends_its_vm(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper and its reaper believe that the deadline is to come: the closed row decides."""
    world = two_hosts(make_world)
    _, b, build = running_on_b(world, retry_on_loss=True)
    machine: Any = world.cloud.machines[row_of(world, build).ref]
    b.host.off = True
    done = lambda: world.truth.builds.get(build).attempt == 2  # noqa: E731
    world.run(TTL + 2 * DOUBT, step=5.0, until=done)
    b.skew = machine.created_at - world.clock()
    b.host.off, b.awake_since = False, world.clock()
    with monkeypatch.context() as unchecked:  # it is alive, and its row was closed
        unchecked.setattr(world, "check", lambda **_: None)
        world.run(world.sweep_seconds + 30, until=lambda: not machine.alive)
    assert not machine.alive
    world.seconds[build] = 5.0
    world.run(60, until=lambda: world.truth.builds.get(build).finished)
    assert world.truth.builds.get(build).result is Result.SUCCESS
    world.settle()


def test_a_host_that_comes_back_early_goes_on(make_world: Make) -> None:
    """A killed process is no host that is gone: the next one there takes all over."""
    world = two_hosts(make_world)
    _, b, build = running_on_b(world, ttl=600.0)
    b.kill()
    world.run(90, step=3.0)
    assert not world.truth.builds.get(build).finished
    world.seconds[build] = 1.0
    on(world, HOST_B)
    world.run(120, until=lambda: world.truth.builds.get(build).finished)
    done = world.truth.builds.get(build)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    world.settle()


def test_a_dead_hosts_pool_is_given_up(make_world: Make) -> None:
    world = two_hosts(make_world)
    on(world, HOST_A, pools=pools())
    b = on(world, HOST_B, pools=pools())
    world.run(120, until=lambda: len(waiting(world)) == 4)
    lost = ready_at(world, HOST_B)
    burn(world, b.host)
    world.run(1500, step=5.0, until=lambda: not ready_at(world, HOST_B))
    assert {world.truth.instances.get(name).state for name in lost} == {InstanceState.GONE}
    world.run(60, until=lambda: len(waiting(world)) == 2)
    assert len(ready_at(world, HOST_A)) == 2
    world.truth.pools.drain("fast", "ops", world.clock())
    world.settle()


def clone(world: World, boot: str) -> Node:
    """A process of a host with machine id "m", over a database that several hosts share."""
    node = world.node(host=Host("m", boot, boot=boot), pools=pools())
    node.engine._one_host = False
    return node


def test_a_cloned_host_that_starts_second_is_refused(make_world: Make) -> None:
    """It says so, and drives nothing: no VM is doubled, and no sweep of its closes a row."""
    world = make_world(many_hosts=True)
    first = clone(world, "b-1")
    filled(world)
    before = {row.id for row in waiting(world)}
    second = clone(world, "b-2")
    build = world.submit()
    world.run(60, until=lambda: second.engine.refused is not None)
    assert second.engine.refused is not None
    assert first.engine.refused is None
    assert second.engine.id not in {member.id for member in world.truth.engines.list()}
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).instance in before
    assert not [r for r in world.truth.instances.list() if r.owner == second.engine.id]
    drained(world)


def test_a_host_that_booted_goes_on_soon(make_world: Make) -> None:
    world = make_world(many_hosts=True)
    clone(world, "b-1").kill()
    node = clone(world, "b-2")
    world.run(120, until=lambda: len(waiting(world)) == 2)
    assert node.engine.refused is None
    assert {row.owner for row in waiting(world)} == {node.engine.id}
    drained(world)


def test_a_vm_lost_by_its_host_is_missed_twice(make_world: Make) -> None:
    """B's VM is gone without a trace, and A sweeps its own between any two sweeps of B."""
    world = two_hosts(make_world)
    world.cloud.set(tombstone=0.0)
    *_, build = running_on_b(world)
    row = row_of(world, build)
    assert row.ref is not None
    world.cloud.die(world.cloud.machines[row.ref])
    newborn = world.limits.limits.newborn
    world.run(2 * newborn, step=5.0, until=lambda: not world.truth.instances.open())
    assert world.truth.instances.get(row.id).state is InstanceState.GONE
    world.settle()
