"""A driver's connection without SQLAlchemy, for a process that only reads: what commands do that
people make all day, and SQLAlchemy takes longer to load than they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vmrunner.ledger import connections
from vmrunner.ledger.statements import Rows, text_of
from vmrunner.ledger.urls import LedgerUrl

if TYPE_CHECKING:
    from vmrunner.ledger.sql import Connection


class DialectName(NamedTuple):
    """A dialect, as far as statements ask for it."""

    name: str


class DirectConnection:
    """One connection, with as much of SQLAlchemy's `Connection` as reading takes. `used`: a
    transaction of it ended well."""

    def __init__(self, url: LedgerUrl, *, migrating: bool = False) -> None:
        """Raises the driver's errors. `migrating`: it leaves the file as it is."""
        self.dialect = DialectName(url.get_backend_name())
        self.info: dict[str, Any] = {}
        self.used = False
        self.driver_connection = _opened(url, migrating=migrating)

    @property
    def connection(self) -> DirectConnection:
        return self

    @property
    def statements(self) -> Connection:
        """The connection, for statements."""
        return cast("Connection", self)

    def execute(self, statement: Any, values: Mapping[str, Any] | None = None) -> Rows:
        """Run a statement of SQLAlchemy's, which has to be compiled for that."""
        text, constants = text_of(statement, self.dialect.name)
        return Rows(
            connections.execute(self.driver_connection, text, {**constants, **(values or {})})
        )

    def exec_driver_sql(self, text: str, values: Sequence[Any] = ()) -> Rows:
        return Rows(self.driver_connection.execute(text, values))

    def begin(self, text: str) -> str:
        """Begin a transaction that reads. Returns its server, for which `text` asks, if any."""
        if self.dialect.name != "sqlite":
            return connections.begin(self.statements, text)
        self.driver_connection.execute("BEGIN").close()
        return ""

    def end(self) -> None:
        """End it: it changed nothing."""
        self.driver_connection.rollback()
        self.used = True

    def close(self) -> None:
        self.driver_connection.close()


def _opened(url: LedgerUrl, *, migrating: bool) -> Any:
    if url.get_backend_name() == "sqlite":
        import sqlite3

        file = url.database or ""
        client = sqlite3.connect(
            file if migrating else connections.existing_file(file),
            timeout=connections.BUSY_MS / 1000,
            check_same_thread=False,
            uri=not migrating,
        )
        try:
            connections.set_up_sqlite(client, migrating=migrating)
        except sqlite3.Error:
            client.close()
            raise
        return client
    import psycopg

    arguments: dict[str, Any] = {**connections.defaults(url), **url.arguments}
    return psycopg.connect(prepare_threshold=None, **arguments)
