"""Use of builds, as their VMs said at their end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("builds", sa.Column("usage", sa.Text(), nullable=True))
