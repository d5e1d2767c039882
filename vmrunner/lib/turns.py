"""Turns at work whose cost a caller chooses: globs, masks, large bodies. One thread of this process
does such work at a time, and rests as long as it took, so that all others together have more of the
interpreter than it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Seconds after which a thread that computes lets another go on. Python's own 5 ms are waited for
#: at each of the dozen steps that a request takes between threads.
SWITCH: Final = 0.0005
#: Seconds of work that need no rest.
SHORT: Final = 0.005

_LOCK: Final = threading.RLock()


@contextmanager
def costly() -> Iterator[None]:
    """Do such work, in parts of milliseconds rather than all of it at once. For no thread that
    others wait for."""
    with _LOCK:
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
    if took > SHORT:
        time.sleep(took)


def often() -> None:
    """Let threads of this process take turns often, where it serves callers."""
    sys.setswitchinterval(SWITCH)
