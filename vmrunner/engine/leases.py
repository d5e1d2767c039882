"""Leases that one process of several holds: taken where they are free, renewed, given back, and
taken over from a holder that is gone.

Whether a lease of another is over is no question of clocks: its holder is gone, or did not renew it
for as long as it lasts while we watched (`lib.change_watch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.lib.change_watch import ChangeWatch

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


class LeaseTaker:
    """The leases of one process, `holder`, that last for so many seconds each. Ask at least three
    times as often. Not for two threads."""

    def __init__(
        self,
        ledger: Ledger,
        holder: str,
        seconds: float,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = ledger.engines
        self._holder = holder
        self._seconds = seconds
        self._clock = clock
        self._monotonic = monotonic
        self._watch: ChangeWatch[str] = ChangeWatch(seconds)

    def take(self, name: str, gone: Callable[[str], bool] = lambda _: False) -> bool:
        """Take or renew a lease; False: another has it. `gone`: true for a holder that is gone,
        whose lease need not be waited for."""
        found = self._engines.lease(name)
        if found is not None and found.holder != self._holder:
            self._watch.look(name, found, self._monotonic())
            if not (self._watch.silent(name) or gone(found.holder)):
                return False
        return self._engines.acquire(name, self._holder, self._clock() + self._seconds, found)

    def another(self, name: str) -> bool:
        """Return True if another has it now."""
        found = self._engines.lease(name)
        return found is not None and found.holder != self._holder

    def release(self, name: str) -> None:
        """Give it back; nothing when another holds it."""
        self._engines.release(name, self._holder)
