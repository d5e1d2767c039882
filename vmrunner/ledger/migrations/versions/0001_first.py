"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "builds",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("instance", _ID, nullable=True),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("owner_until", sa.Double(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("cancel", sa.String(), nullable=True),
        sa.Column("cancelled_at", sa.Double(), nullable=True),
        sa.Column("hold_until", sa.Double(), nullable=True),
        sa.Column("steps_started", sa.Boolean(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("log_lines", sa.BigInteger(), nullable=False),
        sa.Column("log_bytes", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=True),
        sa.Column("phases", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_builds_idempotency_key")),
    )
    op.create_index("ix_builds_finished_at", "builds", ["finished_at"], unique=False)
    op.create_index(op.f("ix_builds_name"), "builds", ["name"], unique=False)
    op.create_index(
        "ix_builds_open",
        "builds",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state <> 'finished'"),
        postgresql_where=sa.text("state <> 'finished'"),
    )
    op.create_index(
        "ix_builds_owner",
        "builds",
        ["owner"],
        unique=False,
        sqlite_where=sa.text("owner IS NOT NULL"),
        postgresql_where=sa.text("owner IS NOT NULL"),
    )
    op.create_index(
        "ix_builds_queued",
        "builds",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "engines",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_engines")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("installation", sa.String(), nullable=False),
        sa.Column("generation", sa.String(), nullable=False),
        sa.Column("canary", sa.LargeBinary(), nullable=False),
        sa.Column("paused_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
    )
    op.create_table(
        "sightings",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("sweep", sa.String(), nullable=False),
        sa.Column("begun", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "what", "subject", name=op.f("pk_sightings")),
    )
    op.create_table(
        "chunks",
        sa.Column("build", _ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name=op.f("fk_chunks_build")),
        sa.PrimaryKeyConstraint("build", "seq", name=op.f("pk_chunks")),
    )
    op.create_table(
        "events",
        sa.Column("build", _ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name=op.f("fk_events_build")),
        sa.PrimaryKeyConstraint("build", "seq", name=op.f("pk_events")),
    )
    op.create_table(
        "instances",
        sa.Column("id", _ID, nullable=False),
        sa.Column("build", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("deadline", sa.Double(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("death", sa.String(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("deletes", sa.Integer(), nullable=False),
        sa.Column("delete_at", sa.Double(), nullable=False),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("access", sa.LargeBinary(), nullable=True),
        sa.Column("ordered", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name=op.f("fk_instances_build")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_index("ix_instances_build", "instances", ["build"], unique=False)
    op.create_index(
        "ix_instances_open",
        "instances",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state <> 'gone'"),
        postgresql_where=sa.text("state <> 'gone'"),
    )
    op.create_index(
        "uq_instances_alive",
        "instances",
        ["build"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('deleting', 'gone')"),
        postgresql_where=sa.text("state NOT IN ('deleting', 'gone')"),
    )
    op.create_table(
        "labels",
        sa.Column("build", _ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["build"], ["builds.id"], name=op.f("fk_labels_build")),
        sa.PrimaryKeyConstraint("build", "name", name=op.f("pk_labels")),
    )
    op.create_index("ix_labels_name_value", "labels", ["name", "value", "build"], unique=False)
