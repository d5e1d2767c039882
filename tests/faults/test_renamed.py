"""A provider has another name when the engines come back: whoever verified the scope of its rows
ends its VMs, closes its rows and goes on with its builds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import LIMITS, World
from vmrunner.model import BuildRecord, BuildState, Death, Reason, Result, Scope
from vmrunner.providers.fake import FakeProvider

OTHER = "aws-prod"


def renamed(world: World) -> None:
    """A new engine, which knows the cloud by another name."""
    node = world.node()
    node.engine.context.providers = {OTHER: FakeProvider(OTHER, world.cloud)}


def three_left(world: World) -> list[BuildRecord]:
    """Builds whose steps run, and whose engine is gone."""
    world.build_seconds = 1e9
    builds = [world.submit(ttl=200, timeout=150) for _ in range(3)]
    first = world.node()
    world.run(60, until=lambda: len(world.started) == 3)
    first.kill()
    return builds


def ended_and_replaced(world: World, builds: list[BuildRecord]) -> None:
    """All end at their deadline, and another build has room."""
    world.run(300)
    assert {world.truth.builds.get(b.id).reason for b in builds} == {Reason.DEADLINE}
    assert not world.truth.instances.open()
    world.build_seconds = 5
    fresh = world.submit(provider=OTHER)
    world.run(300, until=lambda: world.truth.builds.get(fresh.id).state is BuildState.FINISHED)
    assert world.truth.builds.get(fresh.id).result is Result.SUCCESS


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(max_instances=3)


def test_its_builds_are_finished(world: World) -> None:
    world.build_seconds = 60
    build = world.submit()
    first = world.node()
    world.run(60, until=lambda: len(world.started) == 1)
    first.kill()
    renamed(world)
    world.run(300, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    world.run(300, until=lambda: not world.truth.instances.open())
    assert not world.truth.instances.open()
    world.check()


def test_its_rows_close_after_their_deadlines_and_make_room(world: World) -> None:
    builds = three_left(world)
    renamed(world)
    ended_and_replaced(world, builds)


@pytest.mark.parametrize("former", [True, False])
def test_another_account_has_its_name_now(world: World, *, former: bool) -> None:
    """The former account has another name: it has its scope, whatever its rows say. While nobody
    has it, the rows are none of our business."""
    builds = three_left(world)
    name, account_b = world.cloud.name, Scope("fake", "account-b", "zone-a")
    node = world.node()
    node.engine.context.providers = {name: FakeProvider(name, world.cloud, scopes=(account_b,))}
    if not former:
        world.run(60)
        assert {world.truth.builds.get(b.id).state for b in builds} == {BuildState.RUNNING}
        assert all(row.deletes == 0 for row in world.truth.instances.open())
        return
    node.engine.context.providers |= {OTHER: FakeProvider(OTHER, world.cloud)}
    ended_and_replaced(world, builds)


def test_a_build_without_vm_ends_though_nobody_has_its_provider(world: World) -> None:
    """Its engine died after the row was closed: no row leads to the build any more."""
    world.build_seconds = 1e9
    build = world.submit()
    first = world.node()
    world.run(60, until=lambda: len(world.started) == 1)
    first.kill()
    row = world.truth.instances.get(world.truth.builds.get(build.id).instance or "")
    world.truth.instances.close_all([(row.id, row.epoch, Death.VANISHED)], world.clock())
    world.cloud.machines.clear()
    renamed(world)
    world.run(300, until=lambda: world.truth.builds.get(build.id).finished)
    ended = world.truth.builds.get(build.id)
    assert (ended.result, ended.reason) == (Result.ERROR, Reason.VM_LOST)


def waits_again(world: World) -> BuildRecord:
    """A build that lost its VM before its steps, and waits for another under the former name."""
    build = world.submit(ttl=200.0, timeout=150.0)
    first = world.node()
    world.run(60, until=lambda: bool(world.cloud.machines))
    world.truth.pause(True, world.clock())
    first.kill()
    for machine in world.ours():
        world.cloud.preempt(machine)
    return build


def test_a_retry_that_nobody_can_start_ends_with_its_time(world: World) -> None:
    build = waits_again(world)
    renamed(world)
    world.truth.pause(False, world.clock())
    world.run(300)
    assert world.truth.builds.get(build.id).state is BuildState.QUEUED, "the name may come back"
    world.run(LIMITS.max_ttl - 300, step=5.0)
    ended = world.truth.builds.get(build.id)
    assert (ended.result, ended.reason) == (Result.TIMEOUT, Reason.DEADLINE)
    world.nothing_left()


def test_who_cannot_tell_a_retrys_time_leaves_it(world: World) -> None:
    """It has neither the name nor the scope, and the clock of its host is wrong."""
    build = waits_again(world)
    world.node(reaps=False)
    world.run(30, until=lambda: world.truth.builds.get(build.id).state is BuildState.QUEUED)
    world.nodes[-1].kill()
    stranger = world.node(skew=86_400.0)
    elsewhere = Scope("fake", "account-b", "zone-a")
    provider = FakeProvider(OTHER, world.cloud, scopes=(elsewhere,))
    stranger.engine.context.providers = {OTHER: provider}
    world.run(60)
    assert world.truth.builds.get(build.id).state is BuildState.QUEUED
    stranger.kill()
    world.truth.pause(False, world.clock())
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
