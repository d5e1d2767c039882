"""Fork safety: no connection to a database is carried over a fork.

SQLite's locks belong to the process, and which of them it holds it remembers in memory that a fork
copies: a child would go without the locks that it believes in, and lose what it commits. So
everything is closed before a fork, and opened again where it is needed.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol
from weakref import WeakSet

from vmrunner.errors import LedgerError

#: So many seconds a fork waits for transactions that are under way.
FORK_TIMEOUT: Final = 10.0

#: Held while a database is opened or closed, so that no fork falls in between. Taken by the name
#: of this module: a child has a new one.
opening = threading.RLock()


class ForkAware(Protocol):
    """An owner of connections that must not be used after a fork."""

    def before_fork(self) -> None:
        """Close them, and let none be opened."""

    def after_fork_here(self) -> None:
        """Open them again, in the process that forked."""

    def after_fork_there(self) -> None:
        """Begin anew, in the child: no other thread lives there, and no lock is free for sure."""


_watched: Final[WeakSet[ForkAware]] = WeakSet()


def watch(aware: ForkAware) -> None:
    """Call it at each fork from now on."""
    with opening:
        _watched.add(aware)


class TransactionGate:
    """Lets transactions in, until it is shut. `refuses`: it lets none in, ever."""

    def __init__(self, *, refuses: bool = False) -> None:
        self._refuses = refuses
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()  # by thread: how deep
        self._shut = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Wait until it is open, and be inside. Raises LedgerError when it refuses."""
        if self._refuses:
            raise LedgerError(
                "this process was forked while another thread used the ledger",
                hint="start processes with multiprocessing's `spawn`, or fork before the threads",
            )
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._shut or me in self._inside)
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    self._changed.notify_all()

    def shut(self, patience: float) -> bool:
        """Let none in, and wait for those inside. False: one is inside still, or in the process
        that was forked."""
        with self._changed:
            self._shut = True
            if self._refuses or threading.get_ident() in self._inside:  # it waits not for itself
                return False
            return self._changed.wait_for(lambda: not self._inside, patience)

    def when_empty(self, work: Callable[[], None]) -> None:
        """Do it while none is inside. Else leave it to the thread that is inside, has shut it, or
        forked."""
        with self._changed:
            if not (self._inside or self._shut or self._refuses):
                work()

    def open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


def abandon(thing: object) -> None:
    """Keep a thing for ever, unfreed: to free it would end what its other process goes on with."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    opening.acquire()
    for aware in list(_watched):
        aware.before_fork()


def _here() -> None:
    for aware in list(_watched):
        aware.after_fork_here()
    opening.release()


def _there() -> None:
    global opening  # the old one may have waiters, which do not live here
    opening = threading.RLock()
    for aware in list(_watched):
        aware.after_fork_there()


os.register_at_fork(before=_before, after_in_parent=_here, after_in_child=_there)
