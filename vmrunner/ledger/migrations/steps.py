"""Steps of migrations beside which the tables stay in use.

On PostgreSQL `vmrunner db upgrade` runs beside nodes. There `fill`, `add_index` and `drop_index`
commit what came before them, and take only locks that readers and writers do not mind. An upgrade
that is killed begins such a migration anew: before its last step it may have nothing but steps of
this module, each of which may be done twice. SQLite and a new ledger are migrated in one
transaction, of which these steps are a part.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

ROWS_IN_BATCH: Final = 1000  # rows that one transaction writes, and has locked


def beside_others() -> bool:
    """True where each migration has transactions of its own, and others use the tables."""
    return bool(op.get_context().opts.get("transaction_per_migration"))


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column. PostgreSQL writes no row for that, also where `server_default` is set."""
    op.add_column(table, column, if_not_exists=True if beside_others() else None)


def add_filled_column(table: str, column: sa.Column[Any], value: str) -> None:
    """Add a column that is `value` (SQL) in all rows that there are, and its own default in later
    ones. PostgreSQL keeps such a value once for all rows."""
    if not beside_others():
        op.add_column(table, column)
        op.execute(f"UPDATE {table} SET {column.name} = {value}")  # noqa: S608
        return
    kind, default = column.type, column.server_default
    later = str(default.arg) if isinstance(default, sa.DefaultClause) else None
    filled = sa.Column(column.name, kind, nullable=column.nullable, server_default=sa.text(value))
    op.add_column(table, filled, if_not_exists=True)
    op.alter_column(
        table,
        column.name,
        existing_type=kind,
        server_default=None if later is None else sa.text(later),
    )


def fill(table: str, values: str, where: str) -> None:
    """Set `values` (SQL) in the rows `where` (SQL), in batches by `id`."""
    if not beside_others():
        op.execute(f"UPDATE {table} SET {values} WHERE {where}")  # noqa: S608
        return
    batch = sa.text(f"SELECT id FROM {table} WHERE id > :last ORDER BY id LIMIT {ROWS_IN_BATCH}")  # noqa: S608
    update = sa.text(
        f"UPDATE {table} SET {values} WHERE id > :last AND id <= :end AND ({where})"  # noqa: S608
    )
    with op.get_context().autocommit_block():
        connection, last = op.get_bind(), ""
        while ids := connection.execute(batch, {"last": last}).scalars().all():
            connection.execute(update, {"last": last, "end": ids[-1]})
            last = ids[-1]


def add_index(
    name: str, table: str, columns: list[str], where: str | None = None, bytewise: str | None = None
) -> None:
    """Add an index, of the rows `where` (SQL) if given. `bytewise`: that column, a text, is in byte
    order, which PostgreSQL's default is not."""
    such = sa.text(where) if where else None
    operators = {bytewise: "text_pattern_ops"} if bytewise else {}
    if not beside_others():
        op.create_index(
            name, table, columns,
            sqlite_where=such, postgresql_where=such, postgresql_ops=operators,
        )  # fmt: skip
        return
    half_made = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    with op.get_context().autocommit_block():
        # One whose making was cut short is never used, and would do for "if not exists".
        if op.get_bind().execute(half_made, {"name": name}).scalar():
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(
            name, table, columns, postgresql_ops=operators,
            postgresql_where=such, postgresql_concurrently=True, if_not_exists=True,
        )  # fmt: skip


def drop_index(name: str, table: str) -> None:
    """Drop an index."""
    if not beside_others():
        op.drop_index(name, table)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
