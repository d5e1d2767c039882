"""The tables of what is remembered of builds and VMs whose rows are gone (see `models`)."""

from __future__ import annotations

from sqlmodel import Field

from vmrunner.ledger.columns import Row, json_column, time_column


class CostDayRow(Row, table=True):
    """Cost of VMs in one day in UTC, of one kind, provider, tenant, set of labels and source of
    prices. `…_begun`: those of them whose first day it was."""

    __tablename__ = "cost_days"

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
    unpriced_begun: int
    builds: int
    builds_begun: int
    vms: int
    vms_begun: int
    price_at: float | None = time_column(default=None)


class PastCountRow(Row, table=True):
    """Number of builds that ended so, and their cost; of VMs that died so (`result` empty)."""

    __tablename__ = "past_counts"

    what: str = Field(primary_key=True)
    provider: str = Field(primary_key=True)
    result: str = Field(primary_key=True)
    reason: str = Field(primary_key=True)
    count: int
    usd: float = time_column()
