"""Alembic's entry: all in the transaction of the connection that it is given, or, where that has
none, each migration in transactions of its own."""

from __future__ import annotations

from alembic import context

from vmrunner.ledger.models import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=True,
    transaction_per_migration=not connection.in_transaction(),
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
