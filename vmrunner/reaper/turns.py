"""Turns: which providers this process reaps, of those that several have.

Each provider has a lease of its own, so that whoever can read and kill there does, whatever
becomes of it elsewhere. A process to which a provider shows nothing gives that lease back and lets
others have a turn; where nobody takes it, it goes on. Two reapers are harmless; none is not.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner.engine.leases import LeaseTaker
from vmrunner.engine.membership import Membership

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Scope
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner.serve")

PREFIX: Final = "reaper"
REAPER_LEASE: Final = 45.0  # seconds that the right to reap a provider lasts
#: Seconds for which a process to which a provider shows nothing leaves the lease to others; doubled
#: each time.
FIRST_TURN, LONGEST_TURN = 15.0, 300.0
SCOPES_AGAIN: Final = 30.0  # seconds until a provider is asked again whose scopes are not known


def is_reapers(lease: str) -> bool:
    """Return True if this is the name of a lease to reap something."""
    return lease.partition(":")[0] == PREFIX


@dataclass(slots=True)
class _Turn:
    """One provider, and when we may take its lease again (monotonic)."""

    ours: bool = False
    given_up: bool = False
    until: float = 0.0
    pause: float = FIRST_TURN


class Turns(NamedTuple):
    """Providers, by name: those that are ours to reap, and those of them that were not before."""

    ours: frozenset[str]
    fresh: frozenset[str]


class ReaperTurns:
    """The turns of one process. `take` for one thread; any may say what is blind."""

    def __init__(
        self,
        ledger: Ledger,
        me: str,
        membership: Membership,
        *,
        seconds: float = REAPER_LEASE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._monotonic = monotonic
        self._taker = LeaseTaker(ledger, me, seconds, clock=clock, monotonic=monotonic)
        self._turns: dict[str, _Turn] = {}
        self._scopes: dict[str, tuple[Provider, frozenset[Scope], float]] = {}

    def take(self, providers: Mapping[str, Provider]) -> Turns:
        """Take and renew leases, and look who else lives. Raises LedgerError."""
        now = self._monotonic()
        self._membership.update(self._ledger.engines.list(), now)
        before = {name for name, turn in self._turns.items() if turn.ours}
        ours = frozenset(n for n, one in providers.items() if self._is_ours(n, one, now))
        return Turns(ours, ours - before)

    def blind(self, names: Iterable[str]) -> None:
        """Leave these providers, which showed nothing or refused all, to others for a while."""
        now = self._monotonic()
        for name in self._turns.keys() & set(names):
            turn = self._turns[name]
            if now < turn.until:
                continue
            turn.until, turn.given_up = now + turn.pause, False
            turn.pause = min(2 * turn.pause, LONGEST_TURN)
            log.warning("%s shows nothing to this node, or refuses it: another may reap it", name)

    def well(self, names: Set[str]) -> None:
        """These providers answered: the next pause is a short one again."""
        for name in self._turns.keys() & names:
            self._turns[name].pause = FIRST_TURN

    def release(self) -> None:
        """Give all leases back. Raises LedgerError."""
        for name in self._turns:
            self._taker.release(self._lease(name))

    # --- within ---

    def _is_ours(self, name: str, provider: Provider, now: float) -> bool:
        self._learn_scopes(name, provider, now)
        turn, lease = self._turns.setdefault(name, _Turn()), self._lease(name)
        if now < turn.until:
            if not turn.given_up:
                self._taker.release(lease)
                turn.given_up = True
            turn.ours = not self._taker.another(lease)
        else:
            turn.ours = self._taker.take(lease, self._membership.is_dead)
        return turn.ours

    def _learn_scopes(self, name: str, provider: Provider, now: float) -> None:
        """Note the provider's scopes, which may be a call to its cloud."""
        known, scopes, asked = self._scopes.get(name, (None, frozenset(), float("-inf")))
        if known is provider and (scopes or now - asked < SCOPES_AGAIN):
            return
        self._scopes[name] = provider, provider.scopes, now

    def _lease(self, name: str) -> str:
        """Name of the lease. Nodes whose providers of one name have other scopes, as those of local
        VMs on two hosts, reap each its own."""
        _, scopes, _ = self._scopes[name]
        text = " ".join(sorted(map(str, scopes)))
        return f"{PREFIX}:{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
