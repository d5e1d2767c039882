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
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakSet, WeakValueDictionary

from sqlalchemy import (
    BindParameter,
    Connection,
    Delete,
    Engine,
    Insert,
    Select,
    TableClause,
    Update,
    bindparam,
    create_engine,
    event,
    insert,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from vmrunner.errors import LedgerError
from vmrunner.ledger import fork_safety

T = TypeVar("T")
Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete

BUSY_MS: Final = 30_000
RETRIES: Final = 8
_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_ARG: Final = "p_"


class Duplicate(Exception):
    """A unique index or a foreign key forbids it; nothing was written."""


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

    __slots__ = ("_compiled", "_make")

    def __init__(self, make: Callable[[], Statement]) -> None:
        self._make = make
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def _ready(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        ready = self._compiled.get(connection.dialect.name)
        if ready is None:
            compiled = self._make().compile(
                dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
            )
            constants = {k: v for k, v in compiled.params.items() if not k.startswith(_ARG)}
            ready = self._compiled[connection.dialect.name] = (str(compiled), constants)
        return ready

    def __call__(self, connection: Connection, **values: Any) -> Rows:
        text, constants = self._ready(connection)
        parameters = constants.copy()
        for name, value in values.items():
            parameters[_ARG + name] = value
        return Rows(_driver(connection).execute(text, parameters))

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute the statement once for each row, in one call of the driver; nothing is
        returned."""
        if rows:
            text, constants = self._ready(connection)
            connection.exec_driver_sql(
                text,
                [{**constants, **{_ARG + name: value for name, value in r.items()}} for r in rows],
            )


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def inserts(table: TableClause, *columns: str) -> Prepared:
    """An INSERT that takes these columns by name; without names, all of the table's."""
    names = columns or tuple(column.name for column in table.columns)
    return Prepared(lambda: insert(table).values({name: arg(name) for name in names}))


class Database:
    """A database that runs the ledger's transactions. Safe in threads, and in a process that
    forks."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self._engine = connect(url)
        self._writer = self._engine.execution_options(vmrunner_write=True)
        assert self._engine.dialect.dbapi is not None
        self._error = self._engine.dialect.dbapi.Error
        self._forbidden = self._engine.dialect.dbapi.IntegrityError
        self._users: WeakSet[object] = WeakSet()
        self._gate = fork_safety.TransactionGate()
        self._quiet = True  # at the moment of a fork: nothing was open
        # Writers of one process queue here, in turn, instead of in SQLite's busy loop, which
        # sleeps and is not fair; then one connection serves them all.
        self._turn = threading.RLock()  # which knows whose turn it is
        self._kept: Connection | None = None
        fork_safety.watch(self)

    def used_by(self, user: object) -> None:
        """Stay open until each user has let go of it."""
        self._users.add(user)

    def let_go(self, user: object = None) -> None:
        """Close all connections, unless others use it. To use it again opens new ones."""
        if user is not None:
            self._users.discard(user)
        if not self._users:
            with fork_safety.opening:
                if not self._users:
                    self._disconnect()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads."""
        with self._gate.passed():
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except (SQLAlchemyError, self._error) as error:
                raise translated(error, self.url) from error

    def write(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Run `work` in one transaction; it may run more than once, so it has no other effect.
        `patience`: so many seconds it waits for SQLite's other writers, of this process and of all
        others together; None: `BUSY_MS`.

        An exception rolls everything back. `Duplicate`: a unique index or foreign key forbids
        it. `LedgerError`: the database failed, and the write may or may not have happened."""
        for attempt in range(RETRIES):
            try:
                with self._gate.passed(), self._writing(patience) as connection:
                    return work(connection)
            except (SQLAlchemyError, self._error) as error:
                if isinstance(_cause(error), self._forbidden):
                    raise Duplicate(str(error)) from error
                if attempt == RETRIES - 1 or not _aborted(error):
                    raise translated(error, self.url) from error
            time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    def copy_to(self, copy: sqlite3.Connection) -> None:
        """Copy SQLite's file as it is at one moment. Nobody waits for that."""
        with self._gate.passed():
            try:
                with self._engine.connect() as connection:
                    _driver(connection).backup(copy)
            except (SQLAlchemyError, self._error) as error:
                raise translated(error, self.url) from error

    @contextmanager
    def _writing(self, patience: float | None) -> Iterator[Connection]:
        if not self.sqlite:
            with self._writer.begin() as connection:
                yield connection
            return
        with self._in_turn(BUSY_MS / 1000 if patience is None else patience) as left:
            kept = self._kept = self._kept or self._writer.connect()
            _driver(kept).execute(f"PRAGMA busy_timeout = {int(1000 * left)}").close()
            try:
                with kept.begin():
                    yield kept
            finally:
                if _driver(kept).in_transaction:  # Ctrl-C came between: nobody could write again
                    kept.invalidate()
                    kept.close()
                    self._kept = None

    @contextmanager
    def _in_turn(self, patience: float) -> Iterator[float]:
        """Wait for our turn, and tell how many seconds of the patience are left."""
        began = time.monotonic()
        try:
            if not self._turn.acquire(timeout=patience):
                raise sqlite3.OperationalError("database is locked")
            yield max(0.0, patience - (time.monotonic() - began))
        finally:
            with suppress(RuntimeError):  # not ours: it was too long, or Ctrl-C came between
                self._turn.release()

    def _disconnect(self) -> None:
        with self._turn:
            if self._kept is not None:
                self._kept.close()
                self._kept = None
        self._engine.dispose()

    # --- forks ---

    def before_fork(self) -> None:
        self._quiet = self._gate.shut(fork_safety.FORK_TIMEOUT)
        if self._quiet:
            self._disconnect()

    def after_fork_here(self) -> None:
        self._gate.open()

    def after_fork_there(self) -> None:
        self._turn = threading.RLock()
        self._gate = fork_safety.TransactionGate(refuses=not self._quiet)
        if not self._quiet:
            fork_safety.abandon((self._engine, self._kept))


#: By what it is on its disk or server.
_SHARED: Final[WeakValueDictionary[Hashable, Database]] = WeakValueDictionary()


def shared(url: URL) -> Database:
    """The database of this URL in this process: all who open one ledger share its connections."""
    key = _identity(url)
    with fork_safety.opening:
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = Database(url)
        return found


def _identity(url: URL) -> Hashable:
    """Return what all URLs of one database have in common. A SQLite file that was replaced is
    another."""
    if url.get_backend_name() == "sqlite" and url.database is not None:
        path = Path(url.database).resolve()
        found = path.stat()
        return path, found.st_dev, found.st_ino
    return url.render_as_string(hide_password=False)


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
        _sqlite_events(engine, migrating=migrating)
        return engine
    pool = (
        {"poolclass": NullPool}
        if migrating
        else {"pool_size": 8, "max_overflow": 24, "pool_pre_ping": True}
    )
    # Behind a proxy that pools transactions the next one may run in another session of the server,
    # which does not know the statements that this one prepared.
    arguments: dict[str, Any] = {"prepare_threshold": None}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = 10
    return create_engine(url, connect_args=arguments, **pool)


def _sqlite_events(engine: Engine, *, migrating: bool) -> None:
    def opened(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        pragmas = [
            f"busy_timeout = {BUSY_MS}",
            "synchronous = FULL",  # NORMAL loses commits when the power fails
        ]
        if not migrating:  # else the file may be another's, and must stay as it is
            pragmas += ["journal_mode = WAL", "foreign_keys = 1"]
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("vmrunner_write")
        _driver(connection).execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", begun)


def _cause(error: BaseException) -> BaseException:
    """The driver's own error."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def _aborted(error: BaseException) -> bool:
    """True if the server undid the transaction because of another one."""
    return getattr(_cause(error), "sqlstate", "") in _CONFLICTS


def translated(error: BaseException, url: URL) -> LedgerError:
    """Translate a failure of the database for everybody else."""
    cause = _cause(error)
    words = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if url.get_backend_name() != "sqlite":
        where, hint = "", "see whether the database is up and reachable"
    else:
        where = f" ({url.database})"
        hint = next((fix for sign, fix in _FIXES.items() if sign in words), "see who else uses it")
    return LedgerError(f"the ledger's database failed: {words}{where}", hint=hint)


#: What to do about an error of SQLite, by a part of its words.
_RESTORE: Final = "restore a backup, or move it away: VMs of it end at their own deadlines"
_FIXES: Final = {
    "full": "free some space",
    "not a database": _RESTORE,
    "malformed": _RESTORE,
    "locked": "another process has written for half a minute: see which one",
    "disk I/O": "see whether its disk is well, and whether its files were moved away",
    "unable to open": "see who owns it and its directory",
    "readonly": "see who owns it and its directory",
}
