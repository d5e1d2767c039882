"""Tokens and logins of the HTTP API; the tenant, actor and lease of a build that came over it. An
idempotency key is unique within its tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("builds") as builds:
        builds.add_column(sa.Column("tenant", sa.String(), nullable=False, server_default="local"))
        builds.add_column(sa.Column("actor", sa.String(), nullable=False, server_default=""))
        builds.add_column(sa.Column("lease_until", sa.Double(), nullable=True))
        builds.drop_constraint("uq_builds_idempotency_key", type_="unique")
        builds.create_unique_constraint("uq_builds_tenant", ["tenant", "idempotency_key"])
    op.create_index(
        "ix_builds_lease_until",
        "builds",
        ["lease_until"],
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    for name, table, columns, where in (
        (
            "ix_builds_ended",
            "builds",
            ["provider", "result", "reason", "cost"],
            "state = 'finished'",
        ),
        ("ix_instances_death", "instances", ["death"], "state = 'gone'"),
        ("ix_instances_pool", "instances", ["pool", "gone_at"], "pool IS NOT NULL"),
        ("ix_pool_starts_at", "pool_starts", ["at", "build"], None),
    ):
        such = sa.text(where) if where else None
        op.create_index(name, table, columns, sqlite_where=such, postgresql_where=such)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("quota", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_table(
        "logins",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("csrf", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["token"], ["tokens.id"], name=op.f("fk_logins_token")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_logins")),
    )
