"""Indexes of lists of builds by name, actor and result, newest first."""

from __future__ import annotations

from vmrunner.ledger.migrations import steps

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    steps.add_index("ix_builds_name_id", "builds", ["name", "id"], bytewise="name")
    steps.add_index("ix_builds_actor_id", "builds", ["actor", "id"])
    steps.add_index("ix_builds_result_id", "builds", ["result", "id"], "result IS NOT NULL")
    steps.drop_index("ix_builds_name", "builds")
