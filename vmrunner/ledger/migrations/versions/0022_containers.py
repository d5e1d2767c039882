"""Containers of units by their digests, as their systems found them."""

from __future__ import annotations

import sqlalchemy as sa

from vmrunner.ledger.migrations import steps

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    steps.add_column("instances", sa.Column("container", sa.Text(), nullable=True))
