"""The version of a database's tables, and the upgrade to the newest.

A database is read far more often than it is migrated, and Alembic takes a tenth of a second to
import: it is loaded only when there is something to do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger import frozen
from vmrunner.ledger.connections import (
    HELD_UP,
    client_of,
    connect,
    driver,
    single_transaction,
    sqlstate,
    translated,
)
from vmrunner.ledger.direct import DirectConnection
from vmrunner.ledger.sql import Connection, column, select, table
from vmrunner.ledger.statements import Prepared
from vmrunner.ledger.tables import ALL
from vmrunner.ledger.urls import LedgerUrl
from vmrunner.lib import database_url
from vmrunner.lib.table_versions import MIGRATIONS as MIGRATIONS
from vmrunner.lib.table_versions import known as known

#: How often an upgrade asks for what another has, and seconds between two of these times.
LOCK_TRIES: Final = 600
LOCK_PAUSE: Final = 1.0
_LOCK: Final = int.from_bytes(b"vmrunner")  # the number of a lock that PostgreSQL has per database
_COLLISIONS: Final = (HELD_UP, "40P01")  # "deadlock detected"
_FOUND = Prepared(lambda: select(column("version_num")).select_from(table("alembic_version")))


#: The names of a database's tables.
_TABLES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' "
    "ESCAPE '~'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


def tables(connection: Connection) -> set[str]:
    """The names of the database's tables."""
    return {row[0] for row in connection.exec_driver_sql(_TABLES[connection.dialect.name])}


def version(connection: Connection) -> str | None:
    """The database's version; None when it has no tables of ours yet."""
    if "alembic_version" not in tables(connection):
        return None
    found = _FOUND(connection).scalar()
    return None if found is None else str(found)


def difference(connection: Connection) -> str:
    """A message about a wrong version of a ledger that was opened; "": it is right. While nodes
    run, one of a newer vmrunner may have upgraded it."""
    found = _FOUND(connection).scalar()
    if found == known()[-1]:
        return ""
    return (
        f"the ledger has version {found} and this process knows {known()[-1]}: it launches and "
        "concludes nothing, and kills what is past its deadline alone"
    )


def _ours(connection: Connection, url: LedgerUrl) -> str | None:
    """Return the version of a database that may be ours. Raises ConfigError for another
    program's."""
    found, present = version(connection), tables(connection)
    # A server's database may be shared, as long as no name is taken twice.
    strange = present
    if url.get_backend_name() != "sqlite":
        strange = present & {ours.name for ours in ALL}
    if (found is None and strange) or (found is not None and "ledger" not in present):
        some = ", ".join(sorted(strange or present)[:3])
        shown = database_url.shown(url.render_as_string())
        raise ConfigError(
            f"database.url: {shown} is another program's: it has the tables {some}",
            hint="name another one, with VMRUNNER_DATABASE_URL or [database] url",
        )
    return found


def behind(found: str | None) -> bool:
    """True if a database of this version needs an upgrade. Raises ConfigError when it is newer."""
    versions = known()
    if found is not None and found not in versions:
        raise ConfigError(
            f"database.url: the ledger has version {found}; this vmrunner knows {versions[-1]}",
            hint="it was upgraded by a newer vmrunner: use that one",
        )
    return found != versions[-1]


def current(url: LedgerUrl) -> str | None:
    """The version of the database at `url`."""
    try:
        with closing(DirectConnection(url, migrating=True)) as connection:
            return _ours(connection.statements, url)
    except client_of(url.get_backend_name()).Error as error:
        raise translated(error, url) from error


def state(url: LedgerUrl) -> tuple[str | None, int | None]:
    """The same, and bytes of the whole database where a server tells them."""
    with single_transaction(url) as connection:
        size = None
        if connection.dialect.name != "sqlite":
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
        return _ours(connection, url), None if size is None else size.scalar_one()


def upgrade(url: LedgerUrl) -> str:
    """Bring the database at `url` to the newest version; returns that version.

    All or nothing, but for tables on a server that others use meanwhile: there one migration after
    the other, and one that was cut short goes on at the next call."""
    if url.get_backend_name() == "sqlite":
        with single_transaction(url, vmrunner_write=True) as connection:
            found = _ours(connection, url)
            if found is None:
                _make(connection)
            if behind(version(connection)):
                _run(connection)
        return known()[-1]
    with _only_upgrade(url):
        found = current(url)
        if found is None:
            with single_transaction(url) as connection:
                _run(connection)
        elif behind(found):
            _run_beside_others(url)
    return known()[-1]


def migrate(url: LedgerUrl, *, to: str = "head") -> None:
    """Make a SQLite ledger by all migrations up to one, each after the other."""
    with single_transaction(url, vmrunner_write=True) as connection:
        _run(connection, to)


def _make(connection: Connection) -> None:
    """Make the tables of a new SQLite ledger as migrations would, which takes longer than all else
    that a first command does."""
    for statement in frozen.new_ledger():
        connection.exec_driver_sql(statement)


def _run(connection: Connection, to: str = "head") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


@contextlib.contextmanager
def _only_upgrade(url: LedgerUrl) -> Iterator[None]:
    """Wait until no other upgrade of this database runs, and keep others waiting. Raises
    LedgerError after a while.

    The lock is a transaction's, which keeps its session of the server also behind a proxy. An index
    is made only when all snapshots of before are gone: so this transaction has none between two
    statements (those without parameters leave none), and none waits within one for the lock."""
    with single_transaction(url, isolation_level="READ COMMITTED") as connection:
        guard = driver(connection)
        guard.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        for _ in range(LOCK_TRIES):
            if guard.execute(f"SELECT pg_try_advisory_xact_lock({_LOCK})").fetchone()[0]:
                break
            time.sleep(LOCK_PAUSE)
        else:
            raise LedgerError(
                "another upgrade of this ledger runs", hint="wait for it, and try again"
            )
        yield


def _run_beside_others(url: LedgerUrl) -> None:
    """Run the migrations on tables that others use. A change of a table waits for its turn only
    shortly, since all others stand behind it, and comes back later."""
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError

    engine = connect(url, migrating=True)
    event.listen(engine, "begin", _wait_shortly)
    try:
        for tries_left in range(LOCK_TRIES, -1, -1):
            try:
                with engine.connect() as connection:
                    _run(connection)
            except SQLAlchemyError as error:
                if sqlstate(error) not in _COLLISIONS or not tries_left:
                    raise translated(error, url) from error
                time.sleep(LOCK_PAUSE)
            else:
                return
    finally:
        engine.dispose()


def _wait_shortly(connection: Connection) -> None:
    if not driver(connection).autocommit:
        driver(connection).execute("SET LOCAL lock_timeout = '500ms'")
