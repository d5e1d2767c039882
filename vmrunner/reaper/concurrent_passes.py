"""The passes over several providers, side by side: one that takes long keeps no other waiting.

A pass that takes longer than its round goes on and is not begun twice; a later round reports what
it found.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

from vmrunner.errors import Throttled
from vmrunner.lib.threads import WorkerPool
from vmrunner.reaper.report import Report

log = logging.getLogger("vmrunner.engine")

#: Seconds after which a pass counts as lost, and another is begun beside it.
LOST: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Running:
    report: Future[Report]
    began: float  # monotonic


class ConcurrentPasses:
    """The rounds of one reaper. `pool` gives what runs the passes over one provider; its threads
    must not be numbered, since a lost pass may keep one for ever."""

    def __init__(self, pool: Callable[[str], WorkerPool], now: Callable[[], float]) -> None:
        self._pool = pool
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Running] = {}  # by provider, and what it is

    def busy(self, provider: str, what: str) -> bool:
        """True if such a pass is under way, so that it would not be begun."""
        running = self._running.get((provider, what))
        lost = running is not None and self._now() - running.began > LOST
        return running is not None and not running.report.done() and not lost

    def run(self, passes: Mapping[tuple[str, str], Callable[[], Report]], seconds: float) -> Report:
        """Begin them all, but for those that go on from before; wait at most `seconds`. What is not
        over then is reported as not read."""
        with self._lock:
            former = [self._begin(key, work) for key, work in passes.items()]
            awaited = [self._running[key].report for key in passes]
        wait(awaited, timeout=seconds)
        with self._lock:
            return sum([*former, *map(self._take, passes)], Report())

    def _begin(self, key: tuple[str, str], work: Callable[[], Report]) -> Report:
        """Begin a pass, and return the former one's report, where it was not taken yet."""
        if self.busy(*key):
            return Report()
        former = self._take(key) if key in self._running else Report()
        if former.ongoing:  # it keeps its thread: one each `LOST` at most
            log.error("%s: its %s hangs: another is begun beside it", *key)
        self._running[key] = _Running(self._pool(key[0]).submit(work), self._now())
        return former

    def _take(self, key: tuple[str, str]) -> Report:
        running = self._running.get(key)
        if running is None:  # another round took it
            return Report()
        if running.report.done():
            del self._running[key]
            error = running.report.exception()
            if isinstance(error, Throttled):  # no thread: the others go on
                return Report(unread=(f"{key[0]}: its {key[1]} was not begun: {error}",))
            return running.report.result()
        seconds = int(self._now() - running.began)
        text = f"{key[0]}: its {key[1]} goes on: since {seconds} s"
        return Report(unread=(text,), ongoing=(key[0],))
