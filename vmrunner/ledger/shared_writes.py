"""Writes that share a transaction: one commit for all that wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection

from vmrunner.errors import LedgerError
from vmrunner.ledger import fork_safety
from vmrunner.ledger.connections import driver
from vmrunner.ledger.database import Database, HeldUp

T = TypeVar("T")


class Repeated(Exception):
    """A write that stands already; nothing more was written."""


#: So many share one at most: whoever comes next does not wait for long.
SHARED: Final = 64
#: A write that waits for a row which another node has is left out, and done by itself: that node
#: may wait for a row of these. For the number that all draw in the end, each has its turn.
_IMPATIENT: Final = "SET LOCAL lock_timeout = '50ms'"
_PATIENT: Final = "SET LOCAL lock_timeout TO DEFAULT"
_INTERRUPTED: Final = "the ledger's database failed: interrupted"


class _Waiting(Generic[T]):
    """A write, and what became of it."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.result: list[T] = []
        self.error: Exception | None = None
        self.over = False

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


class SharedWrites:
    """Writes to a database by many threads. Whoever has the turn runs all that wait by then and
    commits once. Safe in threads, and in a process that forks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Waiting[Any]] = deque()
        self._turn = threading.Lock()
        fork_safety.watch(self)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do as `Database.write` does."""
        mine = _Waiting(work)
        self._wait([mine])
        return self._outcome(mine)

    def write_all(self, works: Sequence[Callable[[Connection], T]]) -> list[T | Exception]:
        """Do them in as few transactions as may be. Return for each what `write` would return or
        raise."""
        writes = [_Waiting(work) for work in works]
        self._wait(writes)
        outcomes: list[T | Exception] = []
        for one in writes:
            try:
                outcomes.append(self._outcome(one))
            except Exception as error:  # noqa: BLE001 - told to whoever asked, as all are
                outcomes.append(error)
        return outcomes

    def _wait(self, writes: Sequence[_Waiting[T]]) -> None:
        """Wait until they are over; meanwhile, in turn, write what others want too."""
        waiting = self._waiting
        waiting.extend(writes)
        with self._turn:
            while left := [one for one in writes if not one.over]:
                batch = [waiting.popleft() for _ in range(min(len(waiting), SHARED))]
                if batch:
                    self._write_together(batch)
                else:  # whoever took them was interrupted before it began
                    for one in left:
                        one.over, one.error = True, LedgerError(_INTERRUPTED)

    def _outcome(self, one: _Waiting[T]) -> T:
        if one.error is not None:
            raise one.error
        # What failed among others tells why alone.
        return one.result[0] if one.result else self._database.write(one.work)

    def _write_together(self, writes: Sequence[_Waiting[Any]]) -> None:
        error: Exception | None = LedgerError(_INTERRUPTED)

        def run_all(connection: Connection) -> None:
            if not self._database.sqlite:
                driver(connection).execute(_IMPATIENT).close()
            for one in writes:
                one.run(connection)
            if not self._database.sqlite:
                driver(connection).execute(_PATIENT).close()

        try:
            if len(writes) > 1:
                self._database.write(run_all)
            else:
                with suppress(HeldUp):  # done again by itself, as one of many is
                    writes[0].result.append(self._database.write(writes[0].work, waits=False))
            error = None
        except LedgerError as failed:
            error = failed
        except Exception as failed:
            if len(writes) > 1:
                raise
            error = failed
        finally:
            for one in writes:
                one.over, one.error = True, error

    # --- forks ---

    def before_fork(self) -> None:
        """Do nothing: the database waits for who writes."""

    def after_fork_here(self) -> None:
        """Do nothing: all goes on."""

    def after_fork_there(self) -> None:
        self._turn = threading.Lock()
        self._waiting.clear()
