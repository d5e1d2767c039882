"""The place of each sighting. A latch's subject is its place. What else was seen before 0018 has
none and is forgotten: two more sweeps see it again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vmrunner.ledger.migrations import steps

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    steps.add_column(
        "sightings", sa.Column("place", sa.String(), server_default="", nullable=False)
    )
    op.execute("UPDATE sightings SET place = subject WHERE what = 'latch'")
