"""A PostgreSQL primary and its standby, as nodes see them, played over a fault world's files.

Each node has connections of its own, by the real `Database`, to a driver that is SQLite's and fails
as that of PostgreSQL does. A failover breaks them all. Of a commit that was under way nobody hears:
it was done or it was not. For a while nobody takes writes, and then another server does. A
synchronous standby has all that was committed; another lacks the last of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import event

from vmrunner.ledger import Ledger, postgres_calls
from vmrunner.ledger.connections import READING
from vmrunner.ledger.database import Database
from vmrunner.ledger.direct import DirectConnection
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.restore_detection import RestoreDetector, place_of
from vmrunner.ledger.urls import LedgerUrl, parse_url

if TYPE_CHECKING:
    from tests.faults.world import World


class Speaker(Protocol):
    """A process that uses the ledger."""

    points: list[str]


class Client:
    """One that submits."""

    def __init__(self) -> None:
        self.points = ["a submit"]


class CommitFate(Enum):
    """What becomes of the commit at which a primary dies."""

    UNDONE = "undone"
    DONE = "done"


class Servers:
    """Whoever takes writes, one server after the other. `judge` is asked at each commit of a node
    that wrote something, and says at which the primary dies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.file = world.root / "ledger.db"
        self.number = 1
        self.judge: Callable[[Speaker], CommitFate | None] | None = None
        self.window = 7.0  # seconds until the standby is promoted
        self.reads = False  # may it be read meanwhile? Else nobody can connect
        self.commits: list[str] = []  # every place where the primary might have died
        self._until = float("-inf")

    @property
    def promoted(self) -> bool:
        """True if somebody takes writes."""
        return self.world.clock() >= self._until

    def open(self, node: Speaker, seal: Encryption, host: str) -> Ledger:
        """One process's ledger, with a memory of its host's."""
        witness = RestoreDetector(self.world.root / f"witness{host}", place_of(None))
        if witness.read() is None:
            witness.note("")  # it was there before, and started nothing
        truth, database = self.world.truth, _NodesDatabase(self, node)
        return Ledger(
            database, seal, witness, url=truth.url, installation=truth.installation,
            generation=truth.generation,
        )  # fmt: skip

    def read_here(self, database: Database) -> None:
        """Let it read what is true, whoever takes writes."""

        def connect(_dialect: Any, _record: Any, _args: Any, options: Any) -> sqlite3.Connection:
            return sqlite3.connect(self.file, **options)

        event.listen(database._engine, "do_connect", connect)
        direct = lambda: DirectConnection(LedgerUrl("sqlite:", self.file))  # noqa: E731
        setattr(database, "_direct", direct)  # noqa: B010 - a method of its class

    def fail_over(self, behind: Path | None = None) -> None:
        """The primary is gone; its standby is promoted when the window is over. `behind`: what that
        has, where it lacks the last of what was committed."""
        if behind is not None:
            self.world.set_back(*differences(self.file, behind))
            self.file = behind
            self.world.truth._database._disconnect()
        self.number += 1
        self._until = self.world.clock() + self.window
        self.world.untold = max(self.world.untold, self._until)

    def begin_anew(self) -> None:
        """All of it is lost, and its file is made anew."""
        self.file, self._until = self.world.root / "ledger.db", float("-inf")

    def copy(self) -> Path:
        """What a standby has that receives nothing more."""
        behind = self.world.root / f"ledger-{self.number}.db"
        with closing(sqlite3.connect(self.file)) as of, closing(sqlite3.connect(behind)) as to:
            of.backup(to)
        return behind

    def connect(self, node: Speaker, **options: Any) -> _Connection:
        """A connection to whoever answers."""
        if not (self.promoted or self.reads):
            raise sqlite3.OperationalError("connection refused, or the session is read-only")
        connection: _Connection = sqlite3.connect(self.file, factory=_Connection, **options)
        connection.begin_at(self, node)
        return connection

    def fate_of_commit(self, node: Speaker) -> CommitFate | None:
        self.commits.append(node.points[-1] if node.points else "before all")
        return self.judge(node) if self.judge is not None else None


def differences(before: Path, after: Path) -> tuple[set[str], set[str]]:
    """The builds and instances of which a later state lacks something, and those it lacks."""
    rows: list[dict[str, object]] = []
    for file in (before, after):
        with closing(sqlite3.connect(file)) as raw:
            tables = [raw.execute(f"SELECT * FROM {name}") for name in ("builds", "instances")]
            rows.append({row[0]: row for table in tables for row in table})
    was, now = rows
    missing = was.keys() - now.keys()
    return {name for name in was if was[name] != now.get(name)}, missing


class _Connection(sqlite3.Connection):
    """A driver's connection to one server, until that is gone."""

    def begin_at(self, servers: Servers, node: Speaker) -> None:
        self._servers, self._node, self._number = servers, node, servers.number
        self._before = 0
        for name, count, answer in (
            ("pg_postmaster_start_time", 0, lambda: self._number),
            ("pg_is_in_recovery", 0, lambda: not servers.promoted),
            ("concat", -1, lambda *args: "".join(map(str, args))),
            ("set_config", 3, lambda _name, value, _local: value),
            ("clock_timestamp", 0, time.time),
            ("date_part", 2, lambda _part, seconds: seconds),
        ):
            self.create_function(name, count, answer)

    @property
    def closed(self) -> bool:
        return self._number != self._servers.number

    def execute(self, text: str, *rest: Any) -> sqlite3.Cursor:
        self._reach()
        if text.startswith("BEGIN") and self.in_transaction:  # the engine's own, after ours
            text = "SELECT 1"
        if text == "BEGIN IMMEDIATE":
            if not self._servers.promoted:
                raise sqlite3.OperationalError("cannot execute UPDATE in a read-only transaction")
            self._before = self.total_changes
        if text.startswith("SET LOCAL"):  # of PostgreSQL's own: nobody waits for a row here
            text = "SELECT 1"
        return super().execute(text, *rest)

    def cursor(self, *rest: Any) -> Any:
        self._reach()
        return super().cursor(*rest)

    def commit(self) -> None:
        self._reach()
        wrote = self.in_transaction and self.total_changes > self._before
        fate = self._servers.fate_of_commit(self._node) if wrote else None
        if fate is CommitFate.UNDONE:
            super().rollback()
        else:
            super().commit()
        if fate is not None:
            self._servers.fail_over()
            self._reach()

    def rollback(self) -> None:
        super().rollback()
        self._reach()

    def _reach(self) -> None:
        if self.closed:
            super().rollback()
            raise sqlite3.OperationalError("the connection is closed: its server is gone")


class _Calls:
    """PostgreSQL's calls, at a driver that is SQLite's."""

    @staticmethod
    def run_script(client: _Connection, text: str) -> sqlite3.Cursor:
        """Begin a transaction and ask for the server; only those that read wait for tables."""
        _, _, question = text.partition("; ")
        client.execute("BEGIN" if question == READING else "BEGIN IMMEDIATE")
        return client.execute(question)

    @staticmethod
    def look_up(
        client: _Connection, first: str, text: str, values: Mapping[str, Any]
    ) -> tuple[sqlite3.Cursor, sqlite3.Cursor]:
        return client.execute(first), client.execute(text, values)

    @staticmethod
    def commit(client: _Connection, first: str = "") -> None:
        assert not first, "SQLite's dialect draws numbers by statements of its own"
        if client.in_transaction:
            client.commit()


def _spoken(name: str) -> Callable[..., Any]:
    """A call that reaches the servers which are played here, and others as it does."""
    real, played = getattr(postgres_calls, name), getattr(_Calls, name)

    def call(client: Any, *values: Any) -> Any:
        return (played if isinstance(client, _Connection) else real)(client, *values)

    return call


for _name in ("run_script", "look_up", "commit"):
    setattr(postgres_calls, _name, _spoken(_name))


class _NodesDatabase(Database):
    """A node's way to the servers."""

    def __init__(self, servers: Servers, node: Speaker) -> None:
        super().__init__(parse_url(f"sqlite:///{servers.file}"))
        self.sqlite = False  # it is a server's

        def connect(_dialect: Any, _record: Any, _args: Any, options: Any) -> _Connection:
            return servers.connect(node, **options)

        def failed(context: Any) -> None:
            if context.connection is not None:
                context.is_disconnect |= context.connection.connection.driver_connection.closed

        event.listen(self._engine, "do_connect", connect)
        event.listen(self._engine, "handle_error", failed)
