"""A pool at a provider that has no room for another VM: what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.pool_worlds import drained, filled, pools, waiting
from tests.faults.world import World
from vmrunner.errors import NoCapacity
from vmrunner.model import BuildState, Result
from vmrunner.providers.fake import FakeProvider

LARGE = 64  # processors of the machine that is dry


def test_what_waits_needs_no_room_at_its_provider(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    world.node(pools=pools(size=1))
    filled(world, 1)
    (row,) = waiting(world)

    def dry(*_: object) -> None:
        raise NoCapacity("all pools were dry a moment ago")

    with monkeypatch.context() as patch:
        patch.setattr(FakeProvider, "offers", dry)
        build = world.submit()
        world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).instance == row.id
    drained(world)


def large_is_dry(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    usual = getattr(FakeProvider, method)

    def dry(self: FakeProvider, order_or_offer: Any) -> Any:
        if (order_or_offer.offer if method == "create" else order_or_offer).cpus == LARGE:
            raise NoCapacity("the large ones are dry")
        return usual(self, order_or_offer)

    monkeypatch.setattr(FakeProvider, method, dry)


@pytest.mark.parametrize("method", ["offers", "create"])
def test_no_vm_ends_again_and_again_for_a_dry_machine(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What was made room for once keeps that; where it is known to be of no use, none is made."""
    world = make_world(max_instances=1)
    world.node(pools=pools(size=1, ttl=60.0, idle=200.0))
    filled(world, 1)
    with monkeypatch.context() as patch:
        large_is_dry(patch, method)
        build = world.submit(cpus=LARGE, ttl=60, queue_timeout=300)
        world.run(150)
        assert len(list(world.ours())) == 1
        assert world.truth.builds.get(build.id).state is BuildState.QUEUED
    world.run(120, until=lambda: world.truth.builds.get(build.id).finished)
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    drained(world)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("method", ["offers", "create"])
def test_builds_for_a_dry_machine_starve_no_other_pool(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, method: str, nodes: int
) -> None:
    """They try in one place by turns; and once there are such machines again, the pool gives way
    to all of them."""
    world = make_world(max_instances=10)
    with monkeypatch.context() as patch:
        large_is_dry(patch, method)
        builds = [world.submit(cpus=LARGE, ttl=60, queue_timeout=600) for _ in range(10)]
        for _ in range(nodes):
            world.node(pools=pools(ttl=60.0, idle=400.0))
        filled(world)
        world.run(120)
        assert len(list(world.ours())) == 2
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, sum(machine.alive for machine in world.ours()))
        return all(world.truth.builds.get(build.id).finished for build in builds)

    world.run(300, until=done)
    assert all(world.truth.builds.get(b.id).result is Result.SUCCESS for b in builds)
    assert most <= 10
    drained(world)


def test_a_dry_machine_takes_one_place_not_all(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool makes way for all who come, and has all places but one again once they are refused.
    Nothing ends for their tries then, and a build for another machine gets its own at once."""
    world = make_world(max_instances=4)
    world.node(pools=pools(size=4, ttl=60.0, idle=600.0))
    filled(world, 4)
    with monkeypatch.context() as patch:
        large_is_dry(patch, "create")
        for _ in range(6):
            world.submit(cpus=LARGE, ttl=60, queue_timeout=600)
        filled(world, 3)
        made = len(list(world.ours()))
        world.run(150)
        assert len(list(world.ours())) == made
        build = world.submit(container="d")
        world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
        assert world.truth.builds.get(build.id).result is Result.SUCCESS
    drained(world)
