"""Statements that are compiled once, for the driver itself; most of them ahead (`frozen`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmrunner.ledger import change_counter, frozen
from vmrunner.ledger.connections import driver, execute
from vmrunner.ledger.sql import (
    BindParameter,
    ColumnClause,
    Connection,
    Statement,
    TableClause,
    bindparam,
    columns_of,
    insert,
    real,
)

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Dialect

ARG: Final = "p_"
#: As a limit of rows: all.
ALL_ROWS: Final = (1 << 63) - 1


def arg(name: str) -> BindParameter[Any]:
    """A value that a `Prepared` statement takes by this name."""
    return bindparam(ARG + name, required=False)


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

    def one(self) -> tuple[Any, ...]:
        """The only row. Raises ValueError where there is none."""
        (row,) = self.all()
        return row

    def all(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def scalar(self) -> Any:
        row = self.first()
        return None if row is None else row[0]

    scalar_one = scalar

    def scalars(self) -> list[Any]:
        return [row[0] for row in self.all()]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.all())


class Compiled(NamedTuple):
    """A statement's text, the values that it has itself, and whether it changes revisions."""

    text: str
    constants: Mapping[str, Any]
    revises: bool


class Prepared:
    """A Core statement that is compiled once a dialect: ahead where it is a module's, else when it
    is first used. After that it costs no more than the driver's own call (a fifth of SQLAlchemy's).
    Values are plain Python, no enums: the driver gets them as they are, and its rows come back as
    they are."""

    __slots__ = ("_compiled", "_make", "module", "name")

    def __init__(self, make: Callable[[], Statement], *, name: str = "") -> None:
        """`name`: what the statement does, in words that no other has."""
        self._make = make
        self.module, self.name = getattr(make, "func", make).__module__, name
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: str) -> Compiled:
        """Compile it, whatever was compiled ahead."""
        statement, revises = change_counter.revised(real(self._make()), dialect)
        text, constants = text_of(statement, dialect)
        return Compiled(text, constants, revises)

    def _ready(self, connection: Connection) -> Compiled:
        dialect = connection.dialect.name
        ready = self._compiled.get(dialect)
        if ready is None:
            found = frozen.find(self, dialect)
            ready = self.compiled(dialect) if found is None else Compiled(*found)
            self._compiled[dialect] = ready
        if ready.revises:
            change_counter.note(connection)
        return ready

    def __call__(self, connection: Connection, **values: Any) -> Rows:
        return Rows(execute(driver(connection), *self.bound(connection, values)))

    def bound(
        self, connection: Connection, values: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The text for the connection's driver, and its values."""
        text, constants, _ = self._ready(connection)
        parameters = dict(constants)
        for name, value in values.items():
            parameters[ARG + name] = value
        return text, parameters

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute the statement once for each row, in one call of the driver; nothing is
        returned."""
        if rows:
            text, constants, _ = self._ready(connection)
            connection.exec_driver_sql(
                text,
                [{**constants, **{ARG + name: value for name, value in r.items()}} for r in rows],
            )


def text_of(statement: Any, dialect: str) -> tuple[str, dict[str, Any]]:
    """The text of a statement, and the values that it has itself, by their names in that."""
    compiled = statement.compile(
        dialect=_dialect(dialect), compile_kwargs={"render_postcompile": True}
    )
    return str(compiled), {k: v for k, v in compiled.params.items() if not k.startswith(ARG)}


@cache
def _dialect(name: str) -> Dialect:
    if name == "sqlite":
        import sqlite3

        from sqlalchemy.dialects import sqlite

        return sqlite.dialect(dbapi=sqlite3, paramstyle="named")
    from sqlalchemy.dialects.postgresql import psycopg

    dialect: Dialect = psycopg.dialect()  # type: ignore[no-untyped-call]
    return dialect


def run(connection: Connection, statement: Any) -> CursorResult[*tuple[Any, ...]]:
    """The rows of a statement that is made for one occasion, with SQLAlchemy."""
    return connection.execute(real(statement))


def inserts(
    table: TableClause, *columns: str, returning: Sequence[ColumnClause[Any]] = ()
) -> Prepared:
    """An INSERT that takes these columns by name; without names, all of the table's."""
    names = columns or columns_of(table)

    def make() -> Statement:
        statement = insert(table).values({name: arg(name) for name in names})
        return statement.returning(*returning) if returning else statement

    name = f"INSERT {table.name} ({' '.join(names)})"
    return Prepared(make, name=" ".join((name, *(column.name for column in returning))))
