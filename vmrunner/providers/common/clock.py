"""A cloud's clock, by the date in its answers. A host's clock may be a day off, or have slept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

#: A date has whole seconds, and is a little old when it is read: so much is no contradiction.
JITTER: Final = 2.0
#: A jump of more is not believed of one answer alone.
JUMP: Final = 60.0


def boottime() -> float:
    """Seconds since boot, those that the host slept among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CloudClock:
    """The last date that was heard, plus the time since. Until one is heard, the host's clock.

    Every deadline is told by it, so that no single answer may move it far: a jump is believed when
    a second answer agrees, or the host's clock does."""

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
        self._claim: float | None = None  # the same by one answer, with which nothing agrees yet
        self._rumour: float | None = None  # the same by the last answer, from any sender

    def observe(self, date: str | None) -> None:
        """Take in the `Date` header of an answer to a signed request that was a success; one that
        is missing or nonsense says nothing."""
        offset = self._offset_of(date)
        if offset is None:
            return
        with self._lock:
            self._rumour = offset
            host = self._host() - self._elapsed()
            offsets = (self._offset, self._claim, host)
            if not any(other is not None and abs(offset - other) <= JUMP for other in offsets):
                self._claim = offset
                return
            self._claim = None
            # A date is cut to its second: the highest of the offsets is the truest.
            if self._offset is None or not 0 <= self._offset - offset < JITTER:
                self._offset = offset

    def overheard(self, date: str | None) -> None:
        """Take in the date of an error, which a proxy may have made: it counts for `skew` alone."""
        offset = self._offset_of(date)
        if offset is not None:
            self._rumour = offset

    def now(self) -> float:
        """Epoch seconds. While one answer contradicts the host and nothing else was heard, the
        earlier of the two: nothing dies too soon, and no new VM seems old."""
        offset = self._offset  # it is not forgotten again, and a tick asks for each row
        if offset is not None:
            return self._elapsed() + offset
        with self._lock:
            if self._offset is not None:
                return self._elapsed() + self._offset
            host = self._host()
            return host if self._claim is None else min(host, self._elapsed() + self._claim)

    @property
    def skew(self) -> float | None:
        """Seconds that the host's clock is ahead; None when no date was heard."""
        with self._lock:
            offset = self._offset if self._offset is not None else self._rumour
            return None if offset is None else self._host() - (self._elapsed() + offset)

    def _offset_of(self, date: str | None) -> float | None:
        """Outside the lock: to read a date takes long enough for another thread to get its turn."""
        try:
            return parsedate_to_datetime(date or "").timestamp() - self._elapsed()
        except ValueError:
            return None
