"""The tables `[[budgets]]` of the configuration, and the budgets that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vmrunner.config.validation_errors import FieldError
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.lib.config_section import Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmrunner.model import Budget

Usd = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class BudgetSettings(Section):
    """A budget: what builds with these labels may cost in each day or month, in UTC."""

    match: dict[str, str] = Field(
        default_factory=dict, description="Labels; none: all builds, and VMs of pools."
    )
    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    action: Literal["refuse", "warn"] = Field(
        default="refuse", description="What becomes of a VM that would overdraw it."
    )

    @field_validator("match")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            try:
                units.check_label(name, text, "match")
            except ConfigError as error:
                raise FieldError(error) from None
        return value

    @model_validator(mode="after")
    def _one_period(self) -> BudgetSettings:
        if (self.usd_per_day is None) == (self.usd_per_month is None):
            raise ValueError("one of usd_per_day and usd_per_month; write two for both")
        return self


def budgets(sections: Sequence[BudgetSettings]) -> tuple[Budget, ...]:
    """Return the budgets of a configuration."""
    from vmrunner.model import Budget, BudgetAction, BudgetPeriod

    found = []
    for section in sections:
        daily = section.usd_per_day is not None
        budget = Budget(
            usd=(section.usd_per_day if daily else section.usd_per_month) or 0.0,
            period=BudgetPeriod.DAY if daily else BudgetPeriod.MONTH,
            match=section.match,
            action=BudgetAction(section.action),
        )
        found.append(budget)
    return tuple(found)
