"""Engines say which tables they know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("engines", sa.Column("version", sa.String(), nullable=False, server_default=""))
