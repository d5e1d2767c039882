"""Budgets under crashes: whoever dies where, nothing is overdrawn, and nothing is held for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import TTL, World
from vmrunner.core import pricing
from vmrunner.core.budgets import period
from vmrunner.model import Budget, BudgetPeriod, Reason, Result

Make = Callable[..., World]
MAY_COST = 0.1 * TTL / 3600  # one VM of the fake cloud until its deadline
BUDGET = Budget(usd=2.5 * MAY_COST, period=BudgetPeriod.DAY)


def spent(world: World) -> float:
    """USD of all VMs, by their rows."""
    return sum(pricing.cost(row, world.clock()) or 0.0 for row in world.truth.instances.list())


def held(world: World) -> float:
    [state] = world.truth.budgets.states(world.clock())
    return state.held


def test_a_build_without_money_ends_at_once(make_world: Make) -> None:
    world = make_world()
    world.truth.budgets.declare([BUDGET], world.clock())
    builds = [world.submit() for _ in range(3)]
    world.node()
    world.run(1)
    ended = [build for b in builds if (build := world.truth.builds.get(b.id)).finished]
    assert [(record.result, record.reason) for record in ended] == [(Result.ERROR, Reason.BUDGET)]
    assert f"may cost ${MAY_COST:.2f}" in ended[0].message
    world.settle()
    done = [world.truth.builds.get(b.id) for b in builds]
    assert sorted(record.result for record in done) == [
        Result.ERROR,
        Result.SUCCESS,
        Result.SUCCESS,
    ]
    assert world.cloud.counts["create"] == 2
    again = world.submit()
    world.settle()
    assert world.truth.builds.get(again.id).result is Result.SUCCESS, "what was left is free again"


def test_a_configuration_counts_before_the_first_launch(make_world: Make) -> None:
    """A pool's VM is given away without one."""
    world = make_world()
    node = world.node()
    node.engine.context.budgets = [BUDGET]
    world.run(1)
    assert [state.budget for state in world.truth.budgets.states(world.clock())] == [BUDGET]
    node.engine.context.budgets = []
    world.run(5)
    assert world.truth.budgets.states(world.clock()) == []


@pytest.mark.parametrize("first", range(4))
def test_a_death_anywhere_overdraws_nothing(make_world: Make, first: int) -> None:
    for at in range(first * 5, 120, 20):
        world = make_world()
        start = period(BudgetPeriod.DAY, world.clock()).start
        world.truth.budgets.declare([BUDGET], world.clock())
        builds = [world.submit() for _ in range(4)]
        world.node(crash_at=at)
        world.node()
        while not world.quiet():
            world.run(1)
            assert held(world) <= BUDGET.usd + 1e-9, at
        done = [world.truth.builds.get(b.id) for b in builds]
        assert all(
            record.result is Result.SUCCESS or record.reason is Reason.BUDGET for record in done
        ), at
        assert any(record.result is Result.SUCCESS for record in done)
        assert period(BudgetPeriod.DAY, world.clock()).start == start
        assert held(world) == pytest.approx(spent(world)), at
        world.close()
