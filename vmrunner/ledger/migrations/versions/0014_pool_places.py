"""Pools of local VMs: what each host's own is to have and has; of which host's a build got a VM."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "pool_places",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("want", sa.Integer(), nullable=True),
        sa.Column("empty_reason", sa.String(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("noted_at", sa.Double(), nullable=False),
        sa.Column("arrivals", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "place", name=op.f("pk_pool_places")),
    )
    op.add_column("pool_starts", sa.Column("place", sa.String(), nullable=False, server_default=""))
