"""Refusals and failures of pools' VMs in a row, and the pauses after them.

A pool whose image is broken must not make VMs for ever at the pace of a good one: each failure
doubles the pause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from vmrunner.lib.backoff import backoff
from vmrunner.model import EmptyReason

FIRST_PAUSE: Final = 15.0  # seconds until a pool's VM is asked for again; doubled each time
LONGEST_PAUSE: Final = 600.0
#: … where the next one costs nothing but the question, and another's VM may make room.
LONGEST_WITHOUT_VM: Final = 60.0

_WITHOUT_VM: Final = (EmptyReason.CAPACITY, EmptyReason.BUDGET, EmptyReason.CREDENTIALS)


@dataclass(frozen=True, slots=True)
class PoolTrouble:
    """Failures in a row. `since`: the first, by the engines' clock; `until`: when the pool may be
    filled again, monotonic."""

    reason: EmptyReason
    failures: int
    since: float
    until: float


class PoolTroubles:
    """The troubles of one engine's pools. Used by the tick's thread alone."""

    def __init__(self) -> None:
        self._troubles: dict[str, PoolTrouble] = {}

    def note(
        self, pool: str, reason: EmptyReason, *, clock: float, now: float, least: float = 0.0
    ) -> None:
        """Note a failure. All of them within one pause count as one: the VMs were made together.
        `clock`: the engines'; `now`: monotonic; `least`: the pause's least length, in seconds."""
        former = self._troubles.get(pool)
        if former is not None and now < former.until:
            until = max(former.until, now + least)
            self._troubles[pool] = replace(former, reason=reason, until=until)
            return
        failures = former.failures if former is not None else 0
        longest = LONGEST_WITHOUT_VM if reason in _WITHOUT_VM else LONGEST_PAUSE
        pause = max(least, backoff(FIRST_PAUSE, failures, longest))
        since = former.since if former is not None else clock
        self._troubles[pool] = PoolTrouble(reason, failures + 1, since, now + pause)

    def over(self, pool: str) -> None:
        """Forget them: a VM is ready."""
        self._troubles.pop(pool, None)

    def of(self, pool: str) -> PoolTrouble | None:
        """Return the failures since a VM of it was ready last; None: there was none."""
        return self._troubles.get(pool)
