"""Statements that are compiled once, for the driver itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnClause,
    Connection,
    Delete,
    Insert,
    Select,
    TableClause,
    Update,
    bindparam,
    insert,
)

from vmrunner.ledger import change_counter
from vmrunner.ledger.connections import driver, execute

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete

_ARG: Final = "p_"


def arg(name: str) -> BindParameter[Any]:
    """A value that a `Prepared` statement takes by this name."""
    return bindparam(_ARG + name, required=False)


class Rows:
    """Answer of a statement: plain tuples."""

    __slots__ = ("_cursor", "rowcount")

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.rowcount: int = cursor.rowcount  # rows written; nothing to rely on with RETURNING

    def first(self) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._cursor.fetchone()
        self._cursor.close()
        return row

    def all(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def scalar(self) -> Any:
        row = self.first()
        return None if row is None else row[0]


class Prepared:
    """A Core statement that is made and compiled when it is first used, once a dialect: no command
    uses them all. After that it costs no more than the driver's own call (a fifth of SQLAlchemy's).
    Values are plain Python, no enums: the driver gets them as they are, and its rows come back as
    they are."""

    __slots__ = ("_compiled", "_make", "_revises")

    def __init__(self, make: Callable[[], Statement]) -> None:
        self._make = make
        self._revises = False
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def _ready(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        ready = self._compiled.get(connection.dialect.name)
        if ready is None:
            dialect = connection.dialect.name
            statement, self._revises = change_counter.revised(self._make(), dialect)
            compiled = statement.compile(
                dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
            )
            constants = {k: v for k, v in compiled.params.items() if not k.startswith(_ARG)}
            ready = self._compiled[connection.dialect.name] = (str(compiled), constants)
        if self._revises:
            change_counter.note(connection)
        return ready

    def __call__(self, connection: Connection, **values: Any) -> Rows:
        return Rows(execute(driver(connection), *self.bound(connection, values)))

    def bound(
        self, connection: Connection, values: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The text for the connection's driver, and its values."""
        text, constants = self._ready(connection)
        parameters = constants.copy()
        for name, value in values.items():
            parameters[_ARG + name] = value
        return text, parameters

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute the statement once for each row, in one call of the driver; nothing is
        returned."""
        if rows:
            text, constants = self._ready(connection)
            connection.exec_driver_sql(
                text,
                [{**constants, **{_ARG + name: value for name, value in r.items()}} for r in rows],
            )


def inserts(
    table: TableClause, *columns: str, returning: Sequence[ColumnClause[Any]] = ()
) -> Prepared:
    """An INSERT that takes these columns by name; without names, all of the table's."""
    names = columns or tuple(column.name for column in table.columns)

    def make() -> Statement:
        statement = insert(table).values({name: arg(name) for name in names})
        return statement.returning(*returning) if returning else statement

    return Prepared(make)
