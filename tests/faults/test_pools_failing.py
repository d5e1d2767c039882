"""Pools with the windows of production, whose orders nobody sent, or whose VMs do not come up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.pool_worlds import drained, filled, pools, reason, waiting
from tests.faults.world import World
from vmrunner.errors import LedgerError
from vmrunner.ledger.instances import Instances
from vmrunner.model import Death, EmptyReason, Limits
from vmrunner.providers.fake import Fault

Make = Callable[..., World]
POOL = pools(size=4, ttl=1800.0, idle=1800.0)


def production(make_world: Make) -> World:
    return make_world(limits=Limits(max_ttl=7200, orphan_cap=5))


def emptied(world: World) -> None:
    world.truth.pools.drain("fast", "test", world.clock())
    world.run(1000, step=5.0, until=world.quiet)
    world.nothing_left()


def test_the_next_serve_sends_a_dead_ones_orders(make_world: Make) -> None:
    world = production(make_world)
    node = world.node(pools=POOL)
    world.dice = lambda _, point: point == "after instances.start"
    world.run(5, until=lambda: node.dead)
    world.dice = None
    rows = {row.id for row in world.truth.instances.open()}
    assert len(rows) == 4
    assert not list(world.ours())
    world.node(pools=POOL)
    world.run(20, until=lambda: len(waiting(world)) == 4)
    assert {row.id for row in waiting(world)} == rows, "ready within seconds, the very same"
    emptied(world)


def unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of the first intents is not answered: it happened."""
    usual, failures = Instances.start, [1]

    def start(self: Instances, launches: Any, **options: Any) -> Any:
        won = usual(self, launches, **options)
        if launches and failures:
            failures.clear()
            raise LedgerError("the connection broke")
        return won

    monkeypatch.setattr(Instances, "start", start)


def test_an_engine_sends_orders_whose_commit_was_unanswered(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered(monkeypatch)
    world = production(make_world)
    world.node(pools=POOL)
    world.run(20, until=lambda: len(waiting(world)) == 4)
    assert len(waiting(world)) == 4
    emptied(world)


@pytest.mark.parametrize("fault", [Fault.NO_CAPACITY, Fault.BAD_ORDER])
def test_a_refused_order_of_the_dead_is_told(
    make_world: Make, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Whether it was heard before, nobody knows: the row dies the long way, and the pool waits as
    after any refusal."""
    unanswered(monkeypatch)
    world = production(make_world)
    world.fail("create", *[fault] * 4)
    world.node(pools=POOL)
    world.run(3)
    world.run(60, until=lambda: reason(world) not in (None, EmptyReason.MAKING))
    assert reason(world) in (EmptyReason.CAPACITY, EmptyReason.REFUSED)
    assert {r.death for r in world.truth.instances.open()} == {Death.REFUSED}
    emptied(world)


def test_orders_too_old_to_send_are_given_up(make_world: Make) -> None:
    world = production(make_world)
    node = world.node(pools=POOL)
    world.dice = lambda _, point: point == "after instances.start"
    world.run(5, until=lambda: node.dead)
    world.dice = None
    old = {row.id for row in world.truth.instances.open()}
    world.clock.advance(500)  # past half of the newborn window
    world.node(pools=POOL)
    world.run(60, until=lambda: len(waiting(world)) == 4)
    assert len(waiting(world)) == 4
    assert not old & {row.id for row in waiting(world)}
    emptied(world)


def made(world: World) -> int:
    return sum(row.pool is not None for row in world.truth.instances.list())


def test_a_pool_of_a_bad_image_slows_down(make_world: Make) -> None:
    world = make_world(limits=Limits(max_ttl=7200, orphan_cap=5), max_instances=50)
    world.warm_up_seconds, world.warm_up_error = 5.0, "docker: no space left on device"
    world.node(pools=pools(size=8, ttl=1800.0, idle=1800.0))
    world.run(300)
    first = made(world)
    assert 8 <= first <= 8 + 4
    world.run(1800, step=3.0, until=lambda: reason(world) is not EmptyReason.BOOT)
    assert reason(world) is EmptyReason.BOOT, "though one is on its way now and then"
    assert made(world) - first <= 6
    (state,) = world.truth.pools.all()[0].places
    assert state.failures >= 5
    assert state.failing_since is not None
    world.warm_up_error = ""
    world.run(700, step=2.0, until=lambda: len(waiting(world)) == 8)
    assert len(waiting(world)) == 8, "one came up: all the others follow"
    (state,) = world.truth.pools.all()[0].places
    assert (state.failures, state.failing_since, reason(world)) == (0, None, None)
    emptied(world)


def test_a_pool_of_one_tells_why_it_is_empty(make_world: Make) -> None:
    """Also while the one is on its way again."""
    world = production(make_world)
    world.warm_up_seconds, world.warm_up_error = 5.0, "docker: no space left on device"
    world.node(pools=pools(size=1, ttl=1800.0, idle=1800.0))
    world.run(60)
    world.run(300, until=lambda: reason(world) is not EmptyReason.BOOT)
    assert reason(world) is EmptyReason.BOOT
    emptied(world)


def test_a_pool_whose_vms_never_answer_slows_down(make_world: Make) -> None:
    """No session ever fails: they are given up as stuck, one set after the other."""
    world = make_world()
    world.cloud.boot_seconds = 10_000.0  # type: ignore[attr-defined]
    world.node(pools=pools(size=4, idle=300.0))
    world.run(600, step=2.0)
    assert made(world) <= 4 + 4
    assert reason(world) is EmptyReason.BOOT
    drained(world)


def test_warm_ups_that_take_long_are_ready_all_the_same(make_world: Make) -> None:
    world = production(make_world)
    world.warm_up_seconds = 45.0
    for _ in range(2):
        world.node(pools=pools(ttl=1800.0, idle=1800.0))
    filled(world)
    assert made(world) == 2
    emptied(world)
