"""Claims of several engines at once: how many VMs they may start together, whose a build is, and
what is remembered before anything is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.node import Node
from tests.faults.world import World
from vmrunner.errors import LedgerError
from vmrunner.model import Reason, Result


def between_look_and_launch(node: Node, what: Callable[[], object]) -> None:
    """Once, right after its engine has read the ledger."""
    gather = node.engine._reconciler.gather

    def slow() -> object:
        view = gather()
        node.engine._reconciler.gather = gather  # type: ignore[method-assign]
        what()
        return view

    node.engine._reconciler.gather = slow  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("each", [False, True])
def test_two_engines_keep_one_limit(make_world: Callable[..., World], each: bool) -> None:
    """The rooms are counted where they are taken, whatever was seen before."""
    world = make_world(max_instances=99 if each else 5)
    world.build_seconds = 100
    if each:
        world.limits = replace(world.limits, each={world.cloud.name: 5})
    for _ in range(20):
        world.submit(ttl=500, timeout=400)
    first, second = world.node(), world.node()
    between_look_and_launch(second, first.tick)
    second.tick()
    assert len([vm for vm in world.ours() if vm.alive]) == 5
    assert len(world.truth.instances.open()) == 5
    world.run(600, until=lambda: not world.truth.builds.list(active=True))
    assert not world.truth.builds.list(active=True)


def test_an_engine_that_joined_a_moment_ago_is_not_gone(make_world: Callable[..., World]) -> None:
    """Promise 7: whose build it is, is known when the build is."""
    world = make_world()
    world.build_seconds = 20
    old = world.node()
    world.run(5)  # it has looked who is there
    build = world.submit()
    new = world.node()
    new.tick()
    assert world.truth.builds.get(build.id).owner == new.engine.id
    old.tick()
    assert world.truth.builds.get(build.id).owner == new.engine.id
    world.run(60, until=lambda: world.truth.builds.get(build.id).finished)
    kinds = [event.kind for event in world.truth.events.list(build.id)]
    assert "take_over" not in kinds


def test_nothing_is_started_that_cannot_be_remembered(make_world: Callable[..., World]) -> None:
    """Promise 2: an intent whose engine could not write it down is not asked for by the next one
    either. What must die meanwhile dies, and when it can be remembered it is started."""
    world = make_world()
    world.node()
    first = world.submit(ttl=500, timeout=400)
    world.seconds[first.id] = 300
    world.run(10, until=lambda: bool(list(world.ours())))
    note, count = world.truth.instances._started, len(list(world.ours()))

    def refuse(_: str) -> None:
        raise LedgerError("the witness cannot be written: No space left on device")

    world.truth.instances._started = refuse
    second = world.submit(ttl=500, timeout=400)
    world.run(20)
    assert world.truth.builds.get(second.id).instance is not None  # claimed
    assert len(list(world.ours())) == count
    world.truth.builds.request_cancel(first.id, Reason.USER, world.clock())
    world.run(20, until=lambda: world.truth.builds.get(first.id).finished)
    assert world.truth.builds.get(first.id).finished
    world.truth.instances._started = note
    world.run(60, until=lambda: world.truth.builds.get(second.id).finished)
    started = world.truth.instances.list(build=second.id)[0]
    assert world.truth.builds.get(second.id).result is Result.SUCCESS
    assert started.id in (world.root / "witness").read_text()
