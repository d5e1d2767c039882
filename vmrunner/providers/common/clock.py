"""A cloud's clock, by the date in its answers. A host's clock may be a day off, or have slept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

#: A date has whole seconds, and is a little old when it is read: so much is no contradiction.
JITTER: Final = 2.0


def boottime() -> float:
    """Seconds since boot, those that the host slept among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CloudClock:
    """The last date that was heard, plus the time since. Until one is heard, the host's clock."""

    def __init__(
        self,
        *,
        host: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        self._host = host
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._offset: float | None = None  # the cloud's time minus `elapsed`

    def heard(self, date: str | None) -> None:
        """Take in the `Date` header of an answer; one that is missing or nonsense says nothing."""
        try:
            told = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        with self._lock:
            offset = told - self._elapsed()
            # A date is cut to its second: the highest of the offsets is the truest.
            if self._offset is None or not 0 <= self._offset - offset < JITTER:
                self._offset = offset

    def now(self) -> float:
        """Epoch seconds."""
        with self._lock:
            return self._host() if self._offset is None else self._elapsed() + self._offset

    @property
    def skew(self) -> float | None:
        """How far the host's clock is ahead, in seconds; None: no date was heard."""
        with self._lock:
            if self._offset is None:
                return None
            return self._host() - (self._elapsed() + self._offset)
