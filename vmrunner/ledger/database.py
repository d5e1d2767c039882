"""One database, two dialects: connections and transactions.

SQLite: WAL, synchronous=FULL, writers begin IMMEDIATE, so a transaction that reads and then writes
never finds that another wrote in between. PostgreSQL: READ COMMITTED; every write is a
compare-and-set, and a transaction that the server aborts to resolve a conflict is run again. None
runs on a server that was not there before, until its users have recognised what it has.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet, WeakValueDictionary

from vmrunner.errors import LedgerError
from vmrunner.ledger import change_counter, connections, fork_safety
from vmrunner.ledger.connections import BUSY_MS, cause_of, connect, driver, sqlstate, translated
from vmrunner.ledger.direct import DirectConnection
from vmrunner.ledger.statements import Prepared
from vmrunner.ledger.urls import LedgerUrl, sqlite_path
from vmrunner.lib import jitter
from vmrunner.lib.fair_limit import FairLimit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

RETRIES: Final = 8
_LOSSES: Final = "losses"  # how many there were when a connection was made
_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock


@runtime_checkable
class Recognises(Protocol):
    """A user of a database who must look whether it is still the same."""

    def recognise(self) -> None:
        """Look at what its present server has, and trust that server from then on."""


class Duplicate(Exception):
    """A unique index or a foreign key forbids it; nothing was written."""


class HeldUp(Exception):
    """Another has the row that it waits for; nothing was written."""


class Database:
    """A database that runs the ledger's transactions. Safe in threads, and in a process that
    forks. Until something is written, and while one thread reads, it does without SQLAlchemy, by
    one connection of the driver."""

    def __init__(self, url: LedgerUrl) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self._path = sqlite_path(url)
        self._file = _file_at(self._path)  # None: a server's, or not made yet
        client = connections.client_of(url.get_backend_name())
        self._error: type[Exception] = client.Error
        self._forbidden: type[Exception] = client.IntegrityError
        self._made: Engine | None = None
        self._making = threading.RLock()
        self._users: WeakSet[object] = WeakSet()
        self._servers: set[str] = set()  # those that we trust
        self._refusal = ""  # why nothing runs
        self._gate = fork_safety.TransactionGate()
        self._limit_connections()
        self._losses = 0
        self._quiet = True  # at the moment of a fork: nothing was open
        # Writers of one process queue here, in turn, instead of in SQLite's busy loop, which
        # sleeps and is not fair; then one connection serves them all.
        self._turn = threading.RLock()  # which knows whose turn it is
        self._kept: Connection | None = None
        # Threads that read beside each other take seven times as long: each call of the driver
        # gives up the interpreter and waits for it. So short reads have a connection in turn.
        self._looking = threading.Lock()
        self._looker: DirectConnection | None = None
        self._shared = threading.local()  # `connection`: of what this thread reads together
        fork_safety.watch(self)

    @property
    def _engine(self) -> Engine:
        with self._making:
            if self._made is None:
                self._made = connect(self.url)
                from sqlalchemy import event

                if self.sqlite:
                    event.listen(self._made, "connect", self._refuse_another_file)
                else:
                    event.listen(self._made, "connect", self._new_connection)
                    event.listen(self._made, "checkout", self._kept_connection)
                    if self._looking.acquire(blocking=False):
                        self._stop_looking()
                        self._looking.release()
            return self._made

    @cached_property
    def _writer(self) -> Engine:
        return self._engine.execution_options(vmrunner_write=True)

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """The classes of all errors of the database."""
        if self._made is None:
            return (self._error,)
        from sqlalchemy.exc import SQLAlchemyError

        return SQLAlchemyError, self._error

    def _limit_connections(self) -> None:
        """SQLAlchemy's own pool gives a connection to the first that asks when it comes back, which
        is most often the thread that had it."""
        self._readers = FairLimit(connections.READERS)
        self._writers = FairLimit(connections.WRITERS)

    def used_by(self, user: object) -> None:
        """Keep connections until each user has let go of it."""
        self._users.add(user)

    def let_go(self, user: object) -> None:
        """Close all connections, unless others use it: at once, or when the last transaction that
        is under way ends. To use it again opens new ones, for that transaction alone."""
        self._users.discard(user)
        self._close_unused()

    def _close_unused(self) -> None:
        with fork_safety.opening:
            if not self._users:
                self._gate.when_empty(self._disconnect)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        try:
            with self._gate.passed():
                yield
        finally:
            if not self._users:
                self._close_unused()

    def read(
        self,
        work: Callable[[Connection], T],
        *,
        servers: set[str] | None = None,
        snapshot: bool = False,
    ) -> T:
        """Run `work` in a transaction that only reads. `servers`: run it on one that we do not
        trust yet, too; it takes the one that answered, for `trust`. `snapshot`: all its statements
        see one moment, as SQLite's do anyway."""
        self._refuse()
        shared = getattr(self._shared, "connection", None)
        if shared is not None and servers is None and not snapshot:
            try:
                return work(shared)
            except self._failures as error:
                raise translated(error, self.url) from error
        with self._entered():
            return self._read(work, servers, connections.SNAPSHOT if snapshot else "")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that this thread reads meanwhile share one transaction of a server's, of which
        the begin and the end are round trips. Each statement sees what is committed by then, as in
        one of its own. In SQLite each read has its own: there it costs next to nothing."""
        if self.sqlite or self._made is None:
            yield
            return
        self._refuse()
        try:
            begin = f"BEGIN; {connections.READING}"
            with self._entered(), self._begun(self._engine, None, begin) as connection:
                self._shared.connection = connection
                try:
                    yield
                finally:
                    del self._shared.connection
        except self._failures as error:
            raise translated(error, self.url) from error

    def _read(self, work: Callable[[Connection], T], servers: set[str] | None, level: str) -> T:
        begin = f"BEGIN {level}; {connections.READING}"
        try:
            if self._made is None and self._looking.acquire(blocking=False):
                try:
                    return self._read_directly(work, servers, begin)
                finally:
                    self._looking.release()
            with self._begun(self._engine, servers, begin) as connection:
                return work(connection)
        except self._failures as error:
            raise translated(error, self.url) from error

    def _read_directly(
        self, work: Callable[[Connection], T], servers: set[str] | None, begin: str
    ) -> T:
        """Read by the one connection, of which this thread has the turn."""
        while True:
            looker = self._looker = self._looker or self._direct()
            try:
                server = looker.begin(begin)
            except self._error:
                lost = looker.used and not self.sqlite and looker.driver_connection.closed
                self._stop_looking()
                if lost:
                    continue
                raise
            try:
                if servers is not None:
                    servers.add(server)
                if self.sqlite or servers is not None or server in self._servers:
                    return work(looker.statements)
            except (self._error, KeyboardInterrupt):
                self._stop_looking()  # what was not read to its end keeps what it began with
                raise
            finally:
                if self._looker is looker:
                    looker.end()
            self._recognise(server)

    def _direct(self) -> DirectConnection:
        connection = DirectConnection(self.url)
        self._refuse_another_file(connection)
        return connection

    @property
    def is_removed(self) -> bool:
        """True when SQLite's file was deleted, or another is in its place."""
        try:
            return self._file is not None and _file_at(self._path) != self._file
        except OSError:
            return False  # a disk that does not answer is no deleted file

    def _refuse_another_file(self, connection: Any, _record: object = None) -> None:
        """Let no connection have another file than the rest: of two ledgers each knows a half, and
        a VM whose build only the other knows is taken for one that nothing needs."""
        if self.is_removed:
            connection.close()
            raise sqlite3.OperationalError("its file was replaced by another, or deleted")

    def look_up(self, statement: Prepared, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a statement that finds it at once: by a key."""
        self._refuse()
        if not self.sqlite:
            with self._entered():
                if self._made is None:
                    return self._read(lambda c: statement(c, **values).first(), None, "")
                return self._look_up_there(statement, values)
        with self._entered(), self._looking:
            try:
                looker = self._looker = self._looker or self._direct()
                return statement(looker.statements, **values).first()
            except BaseException as error:
                self._stop_looking()  # a look that was not read to its end keeps what it began with
                if isinstance(error, self._failures):
                    raise translated(error, self.url) from error
                raise

    def _look_up_there(
        self, statement: Prepared, values: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """The same at a server: nothing of it counts before that is trusted."""

        def ask(connection: Connection) -> tuple[str, Any]:
            return connections.look_up(connection, *statement.bound(connection, values))

        try:
            while True:
                with self._place(self._readers):
                    connection, (server, row) = self._connected(self._engine, ask)
                    connection.close()
                if server in self._servers:
                    found: tuple[Any, ...] | None = row
                    return found
                self._recognise(server)
        except self._failures as error:
            raise translated(error, self.url) from error

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        patience: float | None = None,
        servers: set[str] | None = None,
        waits: bool = True,
    ) -> T:
        """Run `work` in one transaction; it may run more than once, so it has no other effect.
        `patience`: so many seconds it waits for SQLite's other writers, of this process and of all
        others together; None: `BUSY_MS`. `servers`: as for `read`. `waits`: False to raise HeldUp
        where another has a row of PostgreSQL's for long.

        An exception rolls everything back. `Duplicate`: a unique index or foreign key forbids
        it. `LedgerError`: the database failed, and the write may or may not have happened."""
        self._refuse()
        for attempt in range(RETRIES):
            try:
                with self._entered(), self._writing(patience, servers, waits) as connection:
                    change_counter.begin(connection)
                    done = work(connection)
                    change_counter.draw(connection)
                    return done
            except self._failures as error:
                if isinstance(cause_of(error), self._forbidden):
                    raise Duplicate(str(error)) from error
                if not waits and sqlstate(error) == connections.HELD_UP:
                    raise HeldUp from error
                if attempt == RETRIES - 1 or sqlstate(error) not in _CONFLICTS:
                    raise translated(error, self.url) from error
            time.sleep(jitter.between(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def copy_to(self, copy: sqlite3.Connection) -> None:
        """Copy SQLite's file as it is at one moment. Nothing waits for that."""
        with self._entered():
            try:
                with self._engine.connect() as connection:
                    driver(connection).backup(copy)
            except self._failures as error:
                raise translated(error, self.url) from error

    def check(self, wrong: Callable[[Connection], str]) -> None:
        """Ask whether this database is still for us. What `wrong` says is what every transaction of
        this process is refused with, until it says nothing. Raises LedgerError then."""
        with self._entered():
            self._refusal = self._read(wrong, set(), "")
        self._refuse()

    def _refuse(self) -> None:
        if self._refusal:
            raise LedgerError(self._refusal, hint="restart it with the vmrunner that upgraded it")

    # --- servers ---

    @property
    def servers_met(self) -> int:
        """The number of servers that answered so far: another may lack what was read before."""
        return len(self._servers)

    def trust(self, servers: set[str]) -> None:
        """Run transactions on these, too."""
        self._servers |= servers

    @contextmanager
    def _begun(self, engine: Engine, servers: set[str] | None, begin: str) -> Iterator[Connection]:
        """A transaction, on a server that is trusted or taken down in `servers`. `begin`: begins it
        at a server, and asks which that is."""
        if self.sqlite:
            with engine.begin() as connection:
                yield connection
            return
        limit = self._writers if engine is self._writer else self._readers
        while True:
            with self._place(limit):
                connection, server = self._connected(
                    engine, lambda new: connections.begin(new, begin)
                )
                with connection, self._watched(connection):
                    if servers is not None:
                        servers.add(server)
                    if servers is not None or server in self._servers:
                        yield connection
                        connections.commit(connection)  # else it is rolled back when given back
                        return
            self._recognise(server)

    @contextmanager
    def _place(self, limit: FairLimit) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(limit.place(connections.CONNECTION_WAIT))
            except TimeoutError:
                from sqlalchemy.exc import TimeoutError as NoConnection

                wait = connections.CONNECTION_WAIT
                raise NoConnection(f"no connection was free for {wait:g} s") from None
            yield

    @contextmanager
    def _watched(self, connection: Connection) -> Iterator[None]:
        """Give up all connections that are kept once this one is lost: they go to the same server,
        and each would let another thread wait for it."""
        client, losses = driver(connection), connection.info[_LOSSES]
        try:
            yield
        except BaseException as error:
            if client.closed:
                connection.invalidate(error)  # else the pool would roll back what is gone
            if client.closed and losses == self._losses:
                self._losses += 1
            raise

    def _new_connection(self, _: object, record: ConnectionPoolEntry) -> None:
        record.info[_LOSSES] = self._losses

    def _kept_connection(
        self, _client: object, record: ConnectionPoolEntry, _fairy: object
    ) -> None:
        if record.info[_LOSSES] != self._losses:
            from sqlalchemy.exc import DisconnectionError

            raise DisconnectionError

    def _connected(self, engine: Engine, first: Callable[[Connection], T]) -> tuple[Connection, T]:
        """A connection, and what it was asked first: which server it has. If one that was kept is
        lost, a new one."""
        for new in (False, True):
            connection = engine.connect()
            client = driver(connection)
            try:
                with self._watched(connection):
                    return connection, first(connection)
            except self._error as error:
                lost = client.closed
                connection.invalidate(error)
                connection.close()
                if new or not lost:
                    raise
        raise AssertionError("unreachable")

    def _recognise(self, server: str) -> None:
        with self._turn:  # one at a time: each may give it a new generation
            users = [user for user in self._users if isinstance(user, Recognises)]
            if server not in self._servers:
                for user in users:
                    user.recognise()
            if not users:  # who opens it does that next
                self.trust({server})

    @contextmanager
    def _writing(
        self, patience: float | None, servers: set[str] | None, waits: bool
    ) -> Iterator[Connection]:
        if not self.sqlite:
            begin = f"BEGIN; {connections.SERVER if waits else connections.IMPATIENT}"
            with self._begun(self._writer, servers, begin) as connection:
                yield connection
            return
        with self._in_turn(BUSY_MS / 1000 if patience is None else patience) as seconds:
            kept = self._kept = self._kept or self._writer.connect()
            driver(kept).execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}").close()
            try:
                with kept.begin():
                    yield kept
            finally:
                if driver(kept).in_transaction:  # Ctrl-C came between: no write could begin again
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
        with self._looking:
            self._stop_looking()
        if self._made is not None:
            self._made.dispose()

    def _stop_looking(self) -> None:
        if self._looker is not None:
            self._looker.close()
            self._looker = None

    # --- forks ---

    def before_fork(self) -> None:
        self._quiet = self._gate.shut(fork_safety.FORK_TIMEOUT)
        if self._quiet:
            self._disconnect()

    def after_fork_here(self) -> None:
        self._gate.open()

    def after_fork_there(self) -> None:
        self._turn, self._looking = threading.RLock(), threading.Lock()
        self._making = threading.RLock()
        self._limit_connections()
        self._gate = fork_safety.TransactionGate(refuses=not self._quiet)
        if not self._quiet:
            fork_safety.abandon((self._made, self._kept, self._looker))


#: By what it is on its disk or server.
_SHARED: Final[WeakValueDictionary[Hashable, Database]] = WeakValueDictionary()


def shared(url: LedgerUrl) -> Database:
    """The database of this URL in this process: all who open one ledger share its connections."""
    key = _identity(url)
    with fork_safety.opening:
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = Database(url)
        return found


def _identity(url: LedgerUrl) -> Hashable:
    """A key that all URLs of one database share. A SQLite file that was replaced is another."""
    if url.get_backend_name() == "sqlite" and url.database is not None:
        path = Path(url.database).resolve()
        found = path.stat()
        return path, found.st_dev, found.st_ino
    return url.render_as_string()


def _file_at(path: Path | None) -> tuple[int, int] | None:
    """The identity of SQLite's file on this host; None: there is none. Raises OSError where that is
    not known."""
    try:
        found = None if path is None else path.stat()
    except FileNotFoundError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)
