"""The tables of budgets."""

from __future__ import annotations

from sqlmodel import Field

from vmrunner.ledger.column_types import Row, id_column, json_column, time_column


class BudgetRow(Row, table=True):
    """A budget, of the configuration or of one actor."""

    __tablename__ = "budgets"

    name: str = Field(primary_key=True)
    match: str = json_column()
    usd: float = time_column()
    period: str
    action: str
    actor: str = Field(index=True)  # "": of all


class ChargeRow(Row, table=True):
    """A VM that a budget pays for, until what it cost is added to what is spent."""

    __tablename__ = "budget_charges"

    budget: str = Field(primary_key=True)
    instance: str = id_column(primary_key=True)


class SpentRow(Row, table=True):
    """USD that VMs that are gone have cost a budget in one of its days or months."""

    __tablename__ = "budget_spent"

    budget: str = Field(primary_key=True)
    start: float = time_column(primary_key=True)
    usd: float = time_column()
