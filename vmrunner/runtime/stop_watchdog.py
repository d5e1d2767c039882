"""The bound of a stop: a process that takes longer to end is ended, whatever hangs in it."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("vmrunner.serve")

LAST_WORDS: Final = 5.0  # seconds to say why, after which the kernel ends it


class StopWatchdog:
    """A thread that is there from `start`: a host that gives no more threads gives none to a stop
    either. Its queue may be put to by a signal's handler in the middle of another's."""

    def __init__(self, seconds: float, give_up: Callable[[float], object] | None = None) -> None:
        """`give_up`: called with `seconds` once these are over; by default it ends the process."""
        self._seconds = seconds
        self._give_up = give_up or end_process
        self._over: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stop-watchdog", daemon=True)

    def start(self) -> None:
        """Begin its thread. Raises RuntimeError where there is none to be had."""
        self._thread.start()

    def arm(self) -> None:
        """Let the time run, from the first call on."""
        self._over.put(False)

    def disarm(self) -> None:
        """Note that the stop is over; the thread ends."""
        self._over.put(True)

    def _run(self) -> None:
        if self._over.get():
            return
        end = time.monotonic() + self._seconds
        while (remaining := end - time.monotonic()) > 0:
            try:
                if self._over.get(timeout=remaining):
                    return
            except queue.Empty:
                break
        self._give_up(self._seconds)


def end_process(seconds: float) -> None:
    """End the process with status 1, and say that its stop took more than `seconds`. Where the log
    is what hangs, SIGALRM ends it."""
    signal.setitimer(signal.ITIMER_REAL, LAST_WORDS)
    log.error("stopping takes more than %d s: what this engine held is left to the next", seconds)
    logging.shutdown()
    os._exit(1)
