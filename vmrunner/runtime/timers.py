"""Calls that recur, by the monotonic clock: a wall clock that is set, either way, loses none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

log = logging.getLogger("vmrunner.serve")

LOOK: Final = 1.0  # the longest wait between two looks at what is due, in seconds


@dataclass(slots=True)
class _Timer:
    name: str
    seconds: float
    work: Callable[[], object]
    due: float


class Timers:
    """The timers of one process, in one thread that is there from `start` to `stop`. What they call
    must not take long: it lets a thread of its own begin."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._timers: list[_Timer] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def every(
        self, name: str, seconds: float, work: Callable[[], object], *, at_once: bool = False
    ) -> None:
        """Call `work` each so many seconds; `at_once`: the first time when they are started."""
        due = self._monotonic() + (0.0 if at_once else seconds)
        self._timers.append(_Timer(name, seconds, work, due))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Call nothing more, once what is under way has returned."""
        self._stopped.set()

    def run_due(self) -> None:
        """Call what is due. A time that was missed is not made up for."""
        for timer in self._timers:
            now = self._monotonic()
            if now < timer.due:
                continue
            timer.due = now + timer.seconds
            try:
                timer.work()
            except Exception:
                log.exception("%s", timer.name)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.run_due()
            soonest = min((timer.due for timer in self._timers), default=float("inf"))
            self._stopped.wait(min(LOOK, max(0.0, soonest - self._monotonic())))
