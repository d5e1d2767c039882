"""An index of the sandboxes among the builds, newest first."""

from __future__ import annotations

from vmrunner.ledger.migrations import steps

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    such = "spec NOT LIKE '%\"sandbox_ttl\"\\:null%'"
    steps.add_index("ix_builds_sandboxes", "builds", ["id"], such)
