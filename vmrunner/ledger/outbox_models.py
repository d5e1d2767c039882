"""The tables of webhooks and their notifications (see `models`)."""

from __future__ import annotations

from sqlalchemy import Double, Index, Text, UniqueConstraint, text
from sqlmodel import Field

from vmrunner.ledger.column_types import ID, Row


class NotifyEndpointRow(Row, table=True):
    """A webhook, as a `serve` configured it last, and how it fares."""

    __tablename__ = "notify_endpoints"

    name: str = Field(primary_key=True)
    events: str = Field(sa_type=Text)
    match: str = Field(sa_type=Text)
    named_at: float = Field(sa_type=Double)  # when a `serve` last had it in its configuration
    retry_at: float = Field(default=0.0, sa_type=Double)
    failures: int = 0  # tries in a row
    error: str = Field(default="", sa_type=Text)
    delivered_at: float | None = Field(default=None, sa_type=Double)
    given_up: int = 0
    given_up_at: float | None = Field(default=None, sa_type=Double)


class OutboxRow(Row, table=True):
    """One event for one endpoint; kept for a while after it was sent, so that none is sent twice
    for being noticed twice."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("endpoint", "event", "subject"),
        Index(
            "ix_outbox_open",
            "endpoint",
            "due",
            "id",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_outbox_at", "at"),
    )

    id: str = Field(primary_key=True, sa_type=ID)
    endpoint: str = Field(primary_key=True)
    event: str
    subject: str
    at: float = Field(sa_type=Double)
    due: float = Field(sa_type=Double)
    tries: int = 0
    state: str
    data: str = Field(default="", sa_type=Text)
