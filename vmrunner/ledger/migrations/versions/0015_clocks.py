"""Seconds by which an engine's clock is ahead of the database's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("engines", sa.Column("ahead", sa.Double(), server_default="0", nullable=False))
