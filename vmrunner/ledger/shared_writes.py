"""Writes that share a transaction: one commit for all that wait for their turn.

A lock is not enough for that: the first to come when it is free has it, and a thread whose write is
over long since waits for seconds behind those that come anew.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from vmrunner.errors import LedgerError
from vmrunner.ledger import fork_safety
from vmrunner.ledger.connections import driver
from vmrunner.ledger.database import Database, HeldUp
from vmrunner.ledger.sql import Connection

T = TypeVar("T")


class _Failed(Exception):
    """One of those that share a transaction failed, and with it all of them."""


class Repeated(Exception):
    """A write that stands already; nothing more was written."""


#: So many share one at most: the next does not wait for long.
SHARED: Final = 64
#: A write that waits for a row which another node has is left out, and done by itself: that node
#: may wait for a row of these. For the number that all draw in the end, each has its turn.
_IMPATIENT: Final = "SET LOCAL lock_timeout = '50ms'"
_PATIENT: Final = "SET LOCAL lock_timeout TO DEFAULT"
_INTERRUPTED: Final = "the ledger's database failed: interrupted"


class _Waiting(Generic[T]):
    """A write, and what became of it. `woken`: the event that its thread waits for, which waits
    for the last of its writes."""

    def __init__(self, work: Callable[[Connection], T], woken: threading.Event | None) -> None:
        self.work = work
        self.woken = woken
        self.result: list[T] = []
        self.error: Exception | None = LedgerError(_INTERRUPTED)
        self.over = False
        self.leads = False  # it is its thread's turn to write what waits

    def run(self, connection: Connection) -> None:
        """Do it, undone alone where it fails. It may run more than once."""
        self.result = []
        raw = driver(connection)
        raw.execute("SAVEPOINT shared").close()
        try:
            self.result.append(self.work(connection))
        except Exception:  # noqa: BLE001 - it is done again by itself, and told there
            raw.execute("ROLLBACK TO shared").close()
        raw.execute("RELEASE shared").close()

    def run_unguarded(self, connection: Connection) -> None:
        """Do it without a savepoint, which costs two statements and is next to never needed. Raises
        `_Failed`."""
        try:
            self.result = [self.work(connection)]
        except Exception as error:
            raise _Failed from error

    def tell(self) -> None:
        """Wake its thread: it is over."""
        self.over = True
        woken = self.woken
        if woken is not None:
            woken.set()


class SharedWrites:
    """Writes to a database by many threads. The thread that has the turn runs all that wait by then
    and commits once. Safe in threads, and in a process that forks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()  # of these two
        self._waiting: deque[_Waiting[Any]] = deque()
        self._led = False  # a thread writes what waits, or was told to
        fork_safety.watch(self)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do as `Database.write` does."""
        mine = _Waiting(work, threading.Event())
        self._wait([mine])
        return self._outcome(mine)

    def write_all(self, works: Sequence[Callable[[Connection], T]]) -> list[T | Exception]:
        """Do them in as few transactions as may be. Returns for each what `write` would return or
        raise."""
        if not works:
            return []
        writes = [_Waiting(work, None) for work in works[:-1]]
        writes.append(_Waiting(works[-1], threading.Event()))
        self._wait(writes)
        outcomes: list[T | Exception] = []
        for waiting in writes:
            try:
                outcomes.append(self._outcome(waiting))
            except Exception as error:  # noqa: BLE001 - returned to the caller, as all are
                outcomes.append(error)
        return outcomes

    def _wait(self, writes: Sequence[_Waiting[T]]) -> None:
        """Wait until they are over, in order; meanwhile, in turn, write what others want too."""
        last, woken = writes[-1], writes[-1].woken
        assert woken is not None
        try:
            with self._guard:
                self._waiting.extend(writes)
                last.leads, self._led = not self._led, True
            if not last.leads:
                woken.wait()
            while last.leads and not last.over:
                self._write_some()
        finally:  # interrupted, perhaps: what waits has its turn all the same
            with self._guard:
                last.woken = None
                if last.leads:
                    self._hand_over()

    def _hand_over(self) -> None:
        """Give the turn to the thread that waits longest."""
        heir = next((waiting for waiting in self._waiting if waiting.woken is not None), None)
        self._led = heir is not None
        if heir is not None and heir.woken is not None:
            heir.leads = True
            heir.woken.set()

    def _write_some(self) -> None:
        batch: list[_Waiting[Any]] = []
        try:
            with self._guard:
                while self._waiting and len(batch) < SHARED:
                    batch.append(self._waiting[0])  # first: an interrupt may come in between
                    self._waiting.popleft()
            self._write_together([waiting for waiting in batch if not waiting.over])
        finally:
            for waiting in batch:
                waiting.tell()

    def _outcome(self, waiting: _Waiting[T]) -> T:
        if waiting.error is not None:
            raise waiting.error
        # What failed among others tells why alone.
        return waiting.result[0] if waiting.result else self._database.write(waiting.work)

    def _write_together(self, writes: Sequence[_Waiting[Any]]) -> None:
        error: Exception | None = None
        try:
            if len(writes) > 1:
                try:
                    self._database.write(lambda c: self._run(c, writes, _Waiting.run_unguarded))
                except _Failed:
                    self._database.write(lambda c: self._run(c, writes, _Waiting.run))
            elif writes:
                with suppress(HeldUp):  # done again by itself, as one of many is
                    writes[0].result.append(self._database.write(writes[0].work, waits=False))
        except LedgerError as failed:
            error = failed
        except Exception as failed:
            if len(writes) > 1:
                raise
            error = failed
        for waiting in writes:
            waiting.error = error

    def _run(
        self,
        connection: Connection,
        writes: Sequence[_Waiting[Any]],
        run: Callable[[_Waiting[Any], Connection], None],
    ) -> None:
        if not self._database.sqlite:
            driver(connection).execute(_IMPATIENT).close()
        for waiting in writes:
            run(waiting, connection)
        if not self._database.sqlite:
            driver(connection).execute(_PATIENT).close()

    # --- forks ---

    def before_fork(self) -> None:
        """Do nothing: the database waits for who writes."""

    def after_fork_here(self) -> None:
        """Do nothing: all goes on."""

    def after_fork_there(self) -> None:
        self._guard = threading.Lock()
        self._waiting.clear()
        self._led = False
