"""The providers at which each engine drives builds. Of an engine that joined before, they are not
known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("engines", sa.Column("providers", sa.Text(), nullable=False, server_default="[]"))
