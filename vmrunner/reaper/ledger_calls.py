"""Questions to the ledger that keep no kill waiting: a database whose machine vanished says nothing
for as long as its connection is believed in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any, Final, Protocol, TypeVar

from vmrunner.errors import LedgerError
from vmrunner.lib.threads import WorkerPool

T = TypeVar("T")

LEDGER_PATIENCE: Final = 10.0  # seconds that a reaper waits for the ledger
#: Seconds after which a call that has not come back is lost: another may be tried beside it.
LOST_CALL: Final = 300.0


class AsksLedger(Protocol):
    """Runs a call to the ledger, and returns what it returns. `work` must have no other effect in
    this process: its answer may come when the caller has given up."""

    def __call__(self, work: Callable[[], T]) -> T: ...


def at_once(work: Callable[[], T]) -> T:
    """Run it here, for as long as it takes: nothing else waits for this thread."""
    return work()


class LedgerCalls:
    """Calls to the ledger that are waited for `patience` seconds at most. While one is overdue, all
    others fail at once. `pool`: of threads that are not numbered."""

    def __init__(
        self,
        pool: WorkerPool,
        *,
        patience: float = LEDGER_PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: dict[Future[Any], float] = {}  # since when, monotonic

    def __call__(self, work: Callable[[], T]) -> T:
        """Raises LedgerError where the ledger does not answer."""
        with self._lock:
            now = self._monotonic()
            self._open = {f: since for f, since in self._open.items() if not f.done()}
            for since in self._open.values():
                if self._patience <= now - since < LOST_CALL:
                    raise _silent(now - since)
            call = self._pool.submit(work)
            self._open[call] = now
        try:
            return call.result(self._patience)
        except NoAnswer:
            if call.done():  # its own
                raise
            raise _silent(self._patience) from None


def _silent(seconds: float) -> LedgerError:
    return LedgerError(
        f"the ledger's database has not answered for {int(seconds)} s",
        hint="see whether the database is up and reachable",
    )
