"""The change counter: which builds and instances changed since a reader read them.

A transaction that changes some marks them in their `revision`, and last of all draws the next
number and writes it there. It draws under a lock that it holds until it has committed: so numbers
become visible in their order, and a reader that saw number N misses nothing up to N. Since the lock
comes last, its holder waits for none. What only its own readers ask for is no change: a log's size,
a client's lease, where things lie in the store.

PostgreSQL keeps what was marked in the index until nobody can see it any more, and a draw goes
through all entries of its mark: so each transaction has a mark of its own there.
"""

from __future__ import annotations

from typing import Any, Final

from vmrunner.ledger import connections
from vmrunner.ledger.sql import Connection
from vmrunner.ledger.tables import BUILDS, INSTANCES

_TABLES: Final = (BUILDS.name, INSTANCES.name)
_QUIET: Final = {
    "artifacts_object", "chunks", "collected", "events", "idempotency_key", "keep_logs",
    "lease_until", "log_bytes", "log_due", "log_lines", "log_object", "owner_until", "removed_at",
    "secrets", "source_object",
}  # fmt: skip
_FLAG: Final = "vmrunner.changed"
#: One statement, and so one round trip, where a server is asked.
_DRAW: Final = (
    "WITH drawn AS (UPDATE revisions SET last = last + 1 RETURNING last), "
    "b AS (UPDATE builds SET revision = drawn.last FROM drawn WHERE revision = -txid_current()) "
    "UPDATE instances SET revision = drawn.last FROM drawn WHERE revision = -txid_current()"
)
_DRAW_HERE: Final = (
    "UPDATE revisions SET last = last + 1",
    "UPDATE builds SET revision = (SELECT last FROM revisions) WHERE revision IS NULL",
    "UPDATE instances SET revision = (SELECT last FROM revisions) WHERE revision IS NULL",
)


def revised(statement: Any, dialect: str) -> tuple[Any, bool]:
    """The statement, made to mark what it changes, and true where it does."""
    from sqlalchemy import Insert, Update, literal_column, null

    changes = isinstance(statement, Insert | Update) and str(statement.table) in _TABLES
    if changes and isinstance(statement, Update):
        names = {getattr(column, "name", column) for column in statement._values or ()}
        changes = bool(names - _QUIET)
    if not changes:
        return statement, False
    mark = null() if dialect == "sqlite" else literal_column("-txid_current()")
    return statement.values(revision=mark), True


def begin(connection: Connection) -> None:
    """Forget what another transaction did by this connection."""
    connection.info.pop(_FLAG, None)


def note(connection: Connection) -> None:
    """Note that this transaction changes some."""
    connection.info[_FLAG] = True


def draw(connection: Connection) -> None:
    """Give what this transaction changed the next number, as the last that it does. PostgreSQL's
    ends with that."""
    if not connection.info.pop(_FLAG, None):
        return
    if connection.dialect.name != "sqlite":
        connections.commit(connection, _DRAW)
        return
    for statement in _DRAW_HERE:
        connections.driver(connection).execute(statement).close()
