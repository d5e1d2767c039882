"""Objects of the store, what a build points at, and how long what it leaves is kept. The logs of
builds that ended wait to be uploaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vmrunner.ledger.migrations import steps

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    for column, kind in (
        ("source_object", name),
        ("log_object", name),
        ("artifacts_object", name),
        ("collected", sa.Integer()),
        ("log_due", sa.Double()),
        ("keep_logs", sa.Double()),
        ("removed_at", sa.Double()),
    ):
        steps.add_column("builds", sa.Column(column, kind, nullable=True))
    steps.fill(
        "builds",
        "log_due = 0",
        "state = 'finished' AND EXISTS (SELECT 1 FROM chunks WHERE chunks.build = builds.id)",
    )
    for index, columns, text in (
        ("ix_builds_source_object", ["source_object"], "source_object IS NOT NULL"),
        ("ix_builds_log_due", ["log_due"], "log_due IS NOT NULL"),
        ("ix_builds_kept", ["finished_at"], "state = 'finished' AND removed_at IS NULL"),
    ):
        steps.add_index(index, "builds", columns, text)
    op.create_table(
        "objects",
        sa.Column("name", name, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("build", name, nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("unreferenced_since", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_objects")),
    )
    stored = sa.text("kind = 'source' AND state = 'stored'")
    op.create_index(
        "uq_objects_source",
        "objects",
        ["tenant", "digest"],
        unique=True,
        sqlite_where=stored,
        postgresql_where=stored,
    )
    op.create_index("ix_objects_build", "objects", ["build"])
