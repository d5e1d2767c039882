"""One database, two dialects: connections, transactions, and statements compiled once.

SQLite: WAL, synchronous=FULL, writers begin IMMEDIATE, so a transaction that reads and then
writes never finds that somebody wrote in between. PostgreSQL: READ COMMITTED; every write is a
compare-and-set, and a transaction that the server aborts to resolve a conflict is run again.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BindParameter,
    Connection,
    CursorResult,
    Delete,
    Engine,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    create_engine,
    event,
    insert,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from vmrunner.errors import LedgerError

T = TypeVar("T")

BUSY_MS: Final = 30_000
RETRIES: Final = 8
_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_ARG: Final = "p_"


def arg(name: str) -> BindParameter[Any]:
    """A value that a `Prepared` statement takes by this name."""
    return bindparam(_ARG + name, required=False)


class Prepared:
    """A statement that is compiled once a dialect and then costs little more than the driver's
    own call. Values are plain Python (no enums): they go to the driver as they are."""

    __slots__ = ("_compiled", "_statement")

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        compiled = self._statement.compile(
            dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
        )
        constants = {k: v for k, v in compiled.params.items() if not k.startswith(_ARG)}
        ready = (str(compiled), constants)
        self._compiled[connection.dialect.name] = ready
        return ready

    def __call__(self, connection: Connection, **values: Any) -> CursorResult[*tuple[Any, ...]]:
        ready = self._compiled.get(connection.dialect.name) or self._compile(connection)
        parameters = ready[1].copy()
        for name, value in values.items():
            parameters[_ARG + name] = value
        return connection.exec_driver_sql(ready[0], parameters)

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """The same once for each row, in one call of the driver; nothing is returned."""
        if not rows:
            return
        ready = self._compiled.get(connection.dialect.name) or self._compile(connection)
        connection.exec_driver_sql(
            ready[0],
            [{**ready[1], **{_ARG + name: value for name, value in row.items()}} for row in rows],
        )


def inserts(table: Table, *columns: str) -> Prepared:
    """An INSERT that takes these columns by name; without names, all of the table's."""
    names = columns or tuple(column.name for column in table.columns)
    return Prepared(insert(table).values({name: arg(name) for name in names}))


class Database:
    """Where the ledger's transactions run. Safe in threads."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self._engine = connect(url)
        self._writer = self._engine.execution_options(vmrunner_write=True)
        # Writers of one process queue here, in turn, instead of in SQLite's busy loop, which
        # sleeps and is not fair.
        self._turn = threading.Lock() if self.sqlite else nullcontext()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads."""
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise translated(error) from error

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction; it may run more than once, so it has no other effect.

        An exception rolls everything back. `IntegrityError` passes as it is; every other
        failure of the database is a `LedgerError`: the write may or may not have happened."""
        for attempt in range(RETRIES):
            try:
                with self._turn, self._writer.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except SQLAlchemyError as error:
                if attempt == RETRIES - 1 or not _aborted(error):
                    raise translated(error) from error
            time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._engine.dispose()


def connect(url: URL, *, migrating: bool = False) -> Engine:
    """An engine with our settings. `migrating`: one connection, no foreign keys, since SQLite
    alters a table by making it anew."""
    if url.get_backend_name() == "sqlite":
        pool: dict[str, Any] = (
            {"poolclass": NullPool} if migrating else {"pool_size": 8, "max_overflow": 56}
        )
        engine = create_engine(
            url, paramstyle="named", connect_args={"timeout": BUSY_MS / 1000}, **pool
        )
        _sqlite_events(engine, foreign_keys=not migrating)
        return engine
    pool = (
        {"poolclass": NullPool}
        if migrating
        else {"pool_size": 8, "max_overflow": 24, "pool_pre_ping": True}
    )
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": 10}
    return create_engine(url, connect_args=arguments, **pool)


def _sqlite_events(engine: Engine, *, foreign_keys: bool) -> None:
    def opened(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in (
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",  # NORMAL loses commits when the power fails
            f"foreign_keys = {int(foreign_keys)}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("vmrunner_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", begun)


def _aborted(error: SQLAlchemyError) -> bool:
    """Did the server undo the transaction because of another one?"""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _CONFLICTS


def translated(error: SQLAlchemyError) -> LedgerError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    hint = "free some space" if "full" in words else "see whether the database is up and reachable"
    return LedgerError(f"the ledger's database failed: {words}", hint=hint)
