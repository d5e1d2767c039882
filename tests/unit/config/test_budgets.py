"""`[[budgets]]` of the configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vmrunner.config.budgets import budgets
from vmrunner.config.settings import Settings
from vmrunner.model import Budget, BudgetAction, BudgetPeriod


def declared(*tables: dict[str, object]) -> tuple[Budget, ...]:
    return budgets(Settings.model_validate({"budgets": list(tables)}).budgets)


def test_a_budget_is_for_a_day_or_a_month() -> None:
    found = declared(
        {"usd_per_day": 20},
        {"match": {"team": "a"}, "usd_per_month": 300.5, "action": "warn"},
    )
    assert found == (
        Budget(usd=20.0, period=BudgetPeriod.DAY),
        Budget(
            usd=300.5,
            period=BudgetPeriod.MONTH,
            match={"team": "a"},
            action=BudgetAction.WARN,
        ),
    )
    assert [budget.name for budget in found] == ["day", "month team=a warn"]


def test_one_may_warn_before_another_refuses() -> None:
    found = declared({"usd_per_day": 40}, {"usd_per_day": 30, "action": "warn"})
    assert {budget.name: budget.usd for budget in found} == {"day": 40.0, "day warn": 30.0}


def test_two_for_the_very_same_are_refused() -> None:
    """One of them would count for nothing."""
    with pytest.raises(ValidationError, match=r"budgets\n.*two are 'day'.*leave one"):
        declared({"usd_per_day": 1}, {"usd_per_day": 2})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "one of usd_per_day and usd_per_month"),
        ({"usd_per_day": 1, "usd_per_month": 2}, "write two for both"),
        ({"usd_per_day": -1}, "greater than or equal to 0"),
        ({"usd_per_day": 1, "action": "stop"}, "'refuse' or 'warn'"),
        ({"usd_per_day": 1, "match": {"a b": "c"}}, "a b"),
        ({"usd_per_week": 1}, "usd_per_week"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(table: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match="budgets") as refused:
        declared(table)
    assert words in str(refused.value)
