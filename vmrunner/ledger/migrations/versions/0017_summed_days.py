"""Sums of days of VMs that still have a row, beside those of rows that are gone; the newest of the
latter.

How many VMs of a day that is over lasted longer was not counted: how many began before was. So a
day of before 0017 may count one more or less than it should, where a VM was there at midnight.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vmrunner.ledger.migrations import steps

revision = "0017"
down_revision = "0016"

_ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    steps.add_column("ledger", sa.Column("removed_vm", _ID, nullable=True))
    steps.add_column("instances", sa.Column("summed", sa.Boolean(), nullable=True))
    steps.add_index(
        "ix_instances_summed", "instances", ["summed", "gone_at"], "gone_at IS NOT NULL"
    )
    op.execute("ALTER TABLE cost_days RENAME COLUMN unpriced_begun TO unpriced_ended")
    op.execute("ALTER TABLE cost_days RENAME COLUMN builds_begun TO builds_ended")
    op.execute("ALTER TABLE cost_days RENAME COLUMN vms_begun TO vms_ended")
    op.create_table(
        "summed_days",
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
                "unpriced", "unpriced_ended", "builds", "builds_ended", "vms", "vms_ended",
            )
        ),
        sa.Column("price_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("day", "key", name=op.f("pk_summed_days")),
    )  # fmt: skip
    op.execute(
        "INSERT INTO summed_days (day, key, what, provider, tenant, source, labels, usd, seconds,"
        " unpriced, unpriced_ended, builds, builds_ended, vms, vms_ended, price_at)"
        " SELECT day, key, what, provider, tenant, source, labels, usd, seconds,"
        " unpriced, unpriced_ended, builds, builds_ended, vms, vms_ended, price_at FROM cost_days"
    )
