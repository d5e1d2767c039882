"""Sums and counts of builds and VMs whose rows are gone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "cost_days",
        sa.Column("day", sa.Double(), nullable=False),
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("key", "what", "provider", "tenant", "source")
        ),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in (
                "unpriced", "unpriced_begun", "builds", "builds_begun", "vms", "vms_begun",
            )
        ),
        sa.Column("price_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("day", "key", name=op.f("pk_cost_days")),
    )  # fmt: skip
    op.create_table(
        "past_counts",
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("what", "provider", "result", "reason")
        ),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "what", "provider", "result", "reason", name=op.f("pk_past_counts")
        ),
    )
