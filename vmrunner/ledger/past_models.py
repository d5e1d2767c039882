"""The tables of sums and counts of builds and VMs: of those that are over, and of those whose rows
are gone (see `models`)."""

from __future__ import annotations

from sqlmodel import Field

from vmrunner.ledger.column_types import Row, json_column, time_column


class _DaySumRow(Row):
    """Cost of VMs in one day in UTC, of one kind, provider, tenant, set of labels and source of
    prices. `…_ended`: those of them whose last day it was."""

    day: float = time_column(primary_key=True)  # its midnight
    key: str = Field(primary_key=True)  # SHA-256 of the next five
    what: str
    provider: str
    tenant: str
    source: str
    labels: str = json_column()
    usd: float = time_column()
    seconds: float = time_column()
    unpriced: int
    unpriced_ended: int
    builds: int
    builds_ended: int
    vms: int
    vms_ended: int
    price_at: float | None = time_column(default=None)


class SummedDayRow(_DaySumRow, table=True):
    """Sum of all VMs whose row says so (`instances.summed`) or is gone."""

    __tablename__ = "summed_days"


class CostDayRow(_DaySumRow, table=True):
    """Sum of those whose row is gone."""

    __tablename__ = "cost_days"


class PastCountRow(Row, table=True):
    """Number of builds that ended so, and their cost; of VMs that died so (`result` empty)."""

    __tablename__ = "past_counts"

    what: str = Field(primary_key=True)
    provider: str = Field(primary_key=True)
    result: str = Field(primary_key=True)
    reason: str = Field(primary_key=True)
    count: int
    usd: float = time_column()
