"""Caches, which builds of a tenant leave to later ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "caches",
        sa.Column("id", name, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("object", name, nullable=False),
        sa.Column("build", name, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caches")),
        sa.UniqueConstraint("tenant", "scope", "path", "key", name=op.f("uq_caches_tenant")),
    )
    op.create_index("ix_caches_used_at", "caches", ["used_at"])
    op.create_index("ix_caches_object", "caches", ["object"])
