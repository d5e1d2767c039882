"""The rate of each VM, frozen in its row; what a build cost in the end; prices as clouds told;
budgets, with what they pay for.

Of rows of before nobody knows the rate, but that VMs of this host cost nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vmrunner.ledger.migrations import steps

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    steps.add_column(
        "builds", sa.Column("unpriced", sa.Integer(), nullable=False, server_default="0")
    )
    steps.add_filled_column(
        "builds",
        sa.Column("cost_final", sa.Boolean(), nullable=False, server_default=sa.false()),
        "(1 = 1)",
    )
    steps.add_column("builds", sa.Column("price_source", sa.String(), nullable=True))
    steps.add_column("builds", sa.Column("price_at", sa.Double(), nullable=True))
    for table in ("instances", "images"):
        source = sa.Column("price_source", sa.String(), nullable=False, server_default="unknown")
        steps.add_column(table, sa.Column("usd_hour", sa.Double(), nullable=True))
        steps.add_column(table, source)
        steps.add_column(table, sa.Column("price_at", sa.Double(), nullable=True))
    steps.add_column("instances", sa.Column("parked_usd_hour", sa.Double(), nullable=True))
    steps.add_column("instances", sa.Column("parked_at", sa.Double(), nullable=True))
    steps.fill("builds", "cost_final = (1 = 0)", "state <> 'finished'")
    steps.fill(
        "instances",
        "usd_hour = 0, parked_usd_hour = 0, price_source = 'own'",
        'offer LIKE \'{"scope":["qemu",%\'',
    )
    steps.add_index("ix_instances_gone_at", "instances", ["gone_at"], "gone_at IS NOT NULL")
    op.create_table(
        "prices",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("item", sa.String(), nullable=False),
        sa.Column("usd_hour", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "place", "item", name=op.f("pk_prices")),
    )
    op.create_table(
        "budgets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_budgets")),
    )
    op.create_index("ix_budgets_actor", "budgets", ["actor"])
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "budget_charges",
        sa.Column("budget", sa.String(), nullable=False),
        sa.Column("instance", name, nullable=False),
        sa.PrimaryKeyConstraint("budget", "instance", name=op.f("pk_budget_charges")),
    )
    op.create_table(
        "budget_spent",
        sa.Column("budget", sa.String(), nullable=False),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("budget", "start", name=op.f("pk_budget_spent")),
    )
