"""A task of a daemon: one run at a time, in a thread that is there from the start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from vmrunner.errors import LedgerError

log = logging.getLogger("vmrunner.serve")

BOUND: Final = 600.0  # a run that takes longer is given up, and another is started


class BoundedTask:
    """A task that runs in a thread of its own, once at a time, and not for ever. `start` begins the
    thread, which then needs no other: a host that gives no more threads stops nothing. Only a run
    that hangs costs another. `alone`: a run is never given up, since two would harm each other;
    that it takes long is told."""

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        bound: float = BOUND,
        *,
        alone: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._work = work
        self._bound = bound
        self._alone = alone
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None  # the newest; those before it may hang
        self._wanted = False
        self._began: float | None = None  # a run of the newest worker, monotonic
        self._logged_at = 0.0
        self._stopped = False
        self.finished: float | None = None  # when a run last came to its end, monotonic

    def start(self) -> None:
        """Begin its thread."""
        with self._changed:
            if self._worker is None:
                self._begin()

    def stop(self) -> None:
        """Begin no run more; what runs goes on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __call__(self) -> None:
        """Ask for a run, unless one is under way that may still end."""
        with self._changed:
            if self._began is not None and not self._gives_up(self._began):
                return
            if self._worker is None:
                self._begin()
            self._wanted = True
            self._changed.notify_all()

    def _gives_up(self, began: float) -> bool:
        now = self._monotonic()
        if now - max(began, self._logged_at) < self._bound:
            return False
        self._logged_at = now
        if self._alone:
            log.error("%s has taken %d s, and goes on", self._name, now - began)
            return False
        log.error("%s hangs since %d s: starting another", self._name, now - began)
        try:
            self._begin()
        except RuntimeError as error:
            log.warning("%s: %s", self._name, error)
            return False
        self._began = None
        return True

    def _begin(self) -> None:
        worker = threading.Thread(target=self._run, name=self._name, daemon=True)
        worker.start()
        self._worker = worker

    def _run(self) -> None:
        me = threading.current_thread()
        while self._next(me):
            try:
                self._work()
            except LedgerError as error:
                log.warning("%s: %s", self._name, error)
            except Exception:
                log.exception("%s", self._name)
            else:
                self.finished = self._monotonic()
            with self._changed:
                if self._worker is me:
                    self._began = None

    def _next(self, me: threading.Thread) -> bool:
        """Wait until a run is wanted. False: another thread has its place by now, or it is over."""
        with self._changed:
            while self._worker in (me, None) and not self._stopped and not self._wanted:
                self._changed.wait()
            if self._worker not in (me, None) or self._stopped:
                return False
            self._wanted, self._began = False, self._monotonic()
            return True
