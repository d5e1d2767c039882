"""Webhooks, and the outbox of what they are told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "notify_endpoints",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.Column("named_at", sa.Double(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("given_up", sa.Integer(), nullable=False),
        sa.Column("given_up_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notify_endpoints")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String().with_variant(sa.String(collation="C"), "postgresql")),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", "endpoint", name=op.f("pk_outbox")),
        sa.UniqueConstraint("endpoint", "event", "subject", name=op.f("uq_outbox_endpoint")),
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_outbox_open",
        "outbox",
        ["endpoint", "due", "id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index("ix_outbox_at", "outbox", ["at"])
