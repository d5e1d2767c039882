"""Engines say which tables they know. Builds and instances say when they changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vmrunner.ledger.migrations import steps

revision = "0011"
down_revision = "0009"


def upgrade() -> None:
    for name in ("builds", "instances"):
        steps.add_filled_column(name, sa.Column("revision", sa.BigInteger(), nullable=True), "0")
        steps.add_index(f"ix_{name}_revision", name, ["revision"])
    op.add_column("engines", sa.Column("version", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "revisions",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
    )
    op.execute("INSERT INTO revisions (id, last) VALUES (1, 0)")
