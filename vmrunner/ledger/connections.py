"""Connections to a database with our settings, and its failures in our words."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import LedgerError
from vmrunner.ledger.urls import LedgerUrl

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BUSY_MS: Final = 30_000
POOL_SIZE: Final = 8  # connections that are kept open
#: Connections to PostgreSQL for transactions that read and for those that write. Writers have their
#: own: the engine's and the reaper's never stand behind the API's readers.
READERS: Final = 22
WRITERS: Final = 10
#: Seconds that a thread waits for one of them.
CONNECTION_WAIT: Final = 30.0
#: A server, another start of it, or the end of its recovery, which is where timelines part. Asked
#: first in each transaction, which the server ends when its process says nothing more: one that is
#: stopped would keep its rows from all others.
SERVER: Final = (
    "SELECT concat(pg_postmaster_start_time(), ' ', pg_is_in_recovery()), "
    "set_config('idle_in_transaction_session_timeout', '30s', true)"
)
#: … and does not wait for long for a row that another has.
IMPATIENT: Final = f"{SERVER}, set_config('lock_timeout', '500ms', true)"
#: Reads wait for changes of the tables themselves alone. An upgrade does that for
#: moments; if it takes longer, a reaper goes by tags.
READING: Final = f"{SERVER}, set_config('lock_timeout', '3s', true)"
#: How a transaction begins of which all statements see one moment.
SNAPSHOT: Final = "ISOLATION LEVEL REPEATABLE READ"
HELD_UP: Final = "55P03"  # what the server says of a row that did not come in time


def driver(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


def client_of(backend: str) -> Any:
    """The module of a database's driver."""
    if backend == "sqlite":
        return sqlite3
    import psycopg

    return psycopg


def connect(url: LedgerUrl, *, migrating: bool = False) -> Engine:
    """An engine with our settings. `migrating`: one connection, no foreign keys, since SQLite
    alters a table by making it anew."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if url.get_backend_name() == "sqlite":
        pool: dict[str, Any] = (
            {"poolclass": NullPool} if migrating else {"pool_size": POOL_SIZE, "max_overflow": 56}
        )
        engine = create_engine(
            url.of_sqlalchemy, paramstyle="named", connect_args={"timeout": BUSY_MS / 1000}, **pool
        )
        _sqlite_events(engine, migrating=migrating)
        return engine
    pool = {"pool_size": POOL_SIZE, "max_overflow": READERS + WRITERS - POOL_SIZE}
    if migrating:
        pool = {"poolclass": NullPool}
    # Behind a proxy that pools transactions the next one may run in another session of the server,
    # which does not know the statements that this one prepared.
    arguments: dict[str, Any] = {"prepare_threshold": None, **defaults(url)}
    return create_engine(url.of_sqlalchemy, connect_args=arguments, **pool)


def defaults(url: LedgerUrl) -> dict[str, Any]:
    """Options of a PostgreSQL client beside such a URL, unless that sets them."""
    options: dict[str, Any] = {
        "connect_timeout": 10,
        # A server without a locale of its own says SQL_ASCII, for which the driver gives bytes.
        "client_encoding": "utf8",
        # A machine that vanishes answers nothing, not even that the connection is gone: what was
        # sent to it is waited for this long (milliseconds), and so is an answer (seconds).
        "tcp_user_timeout": 15_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    if isinstance(url.query.get("host"), tuple) or "," in str(url.query.get("host")):
        options["target_session_attrs"] = "read-write"  # not the standby, whichever that is
    return {name: value for name, value in options.items() if name not in url.query}


def set_up_sqlite(connection: sqlite3.Connection, *, migrating: bool) -> None:
    """Give a new connection our settings."""
    connection.isolation_level = None  # the driver begins nothing by itself
    pragmas = [
        f"busy_timeout = {BUSY_MS}",
        "synchronous = FULL",  # NORMAL loses commits when the power fails
    ]
    if not migrating:  # else the file may be another's, and must stay as it is
        pragmas += ["journal_mode = WAL", "foreign_keys = 1"]
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()


def existing_file(path: str) -> str:
    """The URI by which SQLite opens a file that is there, and makes none: one that was deleted
    would be there again, without tables, and not be seen to be deleted."""
    return f"{Path(path).absolute().as_uri()}?mode=rw"


def _sqlite_events(engine: Engine, *, migrating: bool) -> None:
    from sqlalchemy import event

    def opened(connection: sqlite3.Connection, _record: object) -> None:
        set_up_sqlite(connection, migrating=migrating)

    def opens(_dialect: object, _record: object, where: list[Any], options: dict[str, Any]) -> None:
        if not migrating:
            where[0], options["uri"] = existing_file(where[0]), True

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("vmrunner_write")
        driver(connection).execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "do_connect", opens)
    event.listen(engine, "connect", opened)
    event.listen(engine, "begin", begun)


def execute(client: Any, text: str, values: Mapping[str, Any]) -> Any:
    """The cursor of a statement that the driver runs in its transaction."""
    if isinstance(client, sqlite3.Connection):
        return client.execute(text, values)
    from vmrunner.ledger import postgres_calls  # only who has PostgreSQL has its driver

    return postgres_calls.run(client, text, values)


def begin(connection: Connection, text: str) -> str:
    """Begin a transaction of PostgreSQL's, by statements that end with `SERVER`: which it is."""
    from vmrunner.ledger import postgres_calls

    row = postgres_calls.run_script(driver(connection), text).fetchone()
    assert row is not None
    return str(row[0])


def look_up(connection: Connection, text: str, values: Mapping[str, Any]) -> tuple[str, Any]:
    """Read in one round trip to PostgreSQL, and a transaction of its own: which server it is, and
    the first row of a statement."""
    from vmrunner.ledger import postgres_calls

    server, found = postgres_calls.look_up(driver(connection), READING, text, values)
    row = server.fetchone()
    assert row is not None
    return str(row[0]), found.fetchone()


def commit(connection: Connection, last: str = "") -> None:
    """End a transaction of PostgreSQL's, if it has not ended, with this as its last statement."""
    from vmrunner.ledger import postgres_calls

    postgres_calls.commit(driver(connection), last)


def cause_of(error: BaseException) -> BaseException:
    """The driver's own error."""
    return getattr(error, "orig", None) or error


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error; "" where it is not PostgreSQL's."""
    return getattr(cause_of(error), "sqlstate", None) or ""


def translated(error: BaseException, url: LedgerUrl) -> LedgerError:
    """Translate a failure of the database into a LedgerError."""
    cause = cause_of(error)
    words = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if url.get_backend_name() != "sqlite":
        where, hint = "", "see whether the database is up and reachable"
        if sqlstate(error) == HELD_UP:
            hint = "try again: its tables are being changed, as by an upgrade"
    else:
        where = f" ({url.database})"
        hint = next((fix for sign, fix in _FIXES.items() if sign in words), "see who else uses it")
        if "disk I/O" in words and _full(url.database):
            words, hint = f"its disk is full: {words}", _FIXES["full"]
    return LedgerError(f"the ledger's database failed: {words}{where}", hint=hint)


def _full(file: str | None) -> bool:
    """True if there is no room for a page beside a ledger's file."""
    try:
        return shutil.disk_usage(Path(file or ".").parent).free < _PAGES
    except OSError:
        return False


@contextlib.contextmanager
def single_transaction(url: LedgerUrl, **options: Any) -> Iterator[Connection]:
    """A transaction on a connection of its own, which may migrate. Raises LedgerError."""
    from sqlalchemy.exc import SQLAlchemyError

    engine = connect(url, migrating=True).execution_options(**options)
    own = client_of(url.get_backend_name()).Error  # of the statement that begins it
    try:
        with engine.begin() as connection:
            yield connection
    except (SQLAlchemyError, own) as error:
        raise translated(error, url) from error
    finally:
        engine.dispose()


_PAGES: Final = 1 << 20  # bytes that SQLite needs for its journal and its shared memory
#: What to do about an error of SQLite, by a part of its words.
_RESTORE: Final = "restore a backup, or move it away: VMs of it end at their own deadlines"
_FIXES: Final = {
    "full": "free some space",
    "was replaced": "restart what serves it: it minds the VMs of the former one until then",
    "not a database": _RESTORE,
    "malformed": _RESTORE,
    "locked": "another process has written for half a minute: see which one",
    "disk I/O": "see whether its disk is well, and whether its files were moved away",
    "unable to open": "see who owns it and its directory",
    "readonly": "see who owns it and its directory",
}
