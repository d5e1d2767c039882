"""Worlds with a pool, for its tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.faults.crash_points import nothing_of_ours
from tests.faults.world import TTL, World
from vmrunner.model import EmptyReason, Instance, InstanceState, PoolKind, PoolSpec, Result

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


PARKED = {"kind": PoolKind.PARKED}


def parked_pool(provider: str) -> dict[str, PoolSpec]:
    return pools(**PARKED, provider=provider, size=1, idle=150.0)


def parked(world: World) -> list[Instance]:
    return [r for r in world.truth.instances.open() if r.state is InstanceState.PARKED]


def one_parked(world: World) -> Instance:
    """The one VM that waits, once it does."""
    world.run(200, until=lambda: bool(parked(world)))
    (row,) = parked(world)
    return row


def built(world: World) -> Instance:
    """A build, which succeeds at its first attempt; its VM."""
    build = world.submit()
    world.run(300, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    return world.truth.instances.get(done.instance or "")


def emptied(world: World) -> None:
    """All goes well and ends, and nothing is left."""
    world.judge = None
    drained(world)
    nothing_of_ours(world)


def reason(world: World) -> EmptyReason | None:
    (pool,) = world.truth.pools.all()
    return pool.empty_reason


def drawn_pools(draw: Random, providers: Sequence[str]) -> Mapping[str, PoolSpec]:
    """The pools that a process has in its configuration: not the same in each."""
    if draw.random() < 0.2:
        return {}
    spec = PoolSpec(
        name="fast",
        provider=draw.choice(providers),
        kind=draw.choice((PoolKind.HOT, PoolKind.HOT, PoolKind.PARKED)),
        container=draw.choice(("c", "c", "d")),
        size=draw.randint(0, 4),
        ttl=draw.choice((400.0, 900.0)),
        idle=draw.choice((60.0, 300.0)),
    )
    return {"fast": spec}
