"""Witness to the clock that retention goes by: what is old is deleted for good, and a clock that is
weeks fast calls all of it old.

A service writes down again and again what time it is. A time far past the last one written came
unwatched: the service was off for long, or a clock is wrong. Until it has been watched for a day,
nothing is deleted by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.lib import units

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

CLOCK: Final = "clock"  # the name of the heartbeat: the last time that was believed
LEAP: Final = 86_400.0  # seconds that may pass unwatched
PROOF: Final = 86_400.0  # seconds of watching after which a leap is believed
WITNESSED: Final = 300.0  # seconds between two times that are written


def clock_doubt(ledger: Ledger) -> str:
    """The reason why the time is not to be believed; "" where it is."""
    now = ledger.engines.now()
    believed = ledger.engines.heartbeats().get(CLOCK)
    if believed is None or now - believed <= LEAP:
        return ""
    return f"the clock is {units.span(now - believed)} past the last time that a service saw here"


def believe_clock(ledger: Ledger, who: str) -> None:
    """Note that the time is right."""
    ledger.engines.record_heartbeat(CLOCK, who, ledger.engines.now())


class ClockWitness:
    """The witness of one process, `who`. `look` is to be called again and again."""

    def __init__(
        self, ledger: Ledger, who: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._who = who
        self._monotonic = monotonic
        self._written = float("-inf")
        self._doubted: float | None = None

    def look(self) -> str:
        """Write down what time it is, if that can be believed. Returns the doubt about it, else
        ""."""
        now = self._monotonic()
        doubt = clock_doubt(self._ledger)
        if doubt:
            self._doubted = now if self._doubted is None else self._doubted
            if now - self._doubted < PROOF:
                return doubt
        if doubt or now - self._written >= WITNESSED:
            believe_clock(self._ledger, self._who)
            self._written = now
        self._doubted = None
        return ""
