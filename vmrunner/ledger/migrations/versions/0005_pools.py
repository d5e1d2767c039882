"""Pools: VMs that have no build until one claims them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("instances") as instances:
        instances.alter_column("build", existing_type=_ID, nullable=True)
        instances.add_column(sa.Column("pool", sa.String(), nullable=True))
        instances.add_column(sa.Column("shape", sa.String(), nullable=True))
        instances.add_column(sa.Column("start", sa.String(), nullable=True))
        instances.add_column(sa.Column("due", sa.Double(), nullable=True))
        instances.add_column(sa.Column("claimed_at", sa.Double(), nullable=True))
    op.create_table(
        "pools",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("shape", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("named_at", sa.Double(), nullable=False),
        sa.Column("want", sa.Integer(), nullable=True),
        sa.Column("empty_reason", sa.String(), nullable=True),
        sa.Column("arrivals", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pools")),
    )
    op.create_table(
        "pool_starts",
        sa.Column("build", _ID, nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("hit", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name=op.f("fk_pool_starts_build")),
        sa.PrimaryKeyConstraint("build", name=op.f("pk_pool_starts")),
    )
    op.create_index("ix_pool_starts_pool_at", "pool_starts", ["pool", "at"])
    op.create_table(
        "actions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
    )
