"""Turns: which providers this process reaps, of those that several have.

Each provider has a lease of its own, so that a node which can read and kill there does, whatever
becomes of it elsewhere. A process to which a provider shows nothing gives that lease back and lets
others have a turn; where none takes it, it goes on. Two reapers are harmless; none is not.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner.engine.leases import LeaseTaker
from vmrunner.engine.membership import Membership
from vmrunner.lib.threads import WorkerPool

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
SCOPES_PATIENCE: Final = 2.0  # seconds that are waited for all that are asked for theirs


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


@dataclass(frozen=True, slots=True)
class _ScopesCall:
    """A provider that was asked for its scopes."""

    provider: Provider
    answer: Future[frozenset[Scope]]
    asked_at: float  # monotonic

    @property
    def scopes(self) -> frozenset[Scope]:
        """None of them where it failed, or has not answered yet."""
        if not self.answer.done() or self.answer.exception() is not None:
            return frozenset()
        return self.answer.result()

    def is_to_be_made_again(self, provider: Provider, now: float) -> bool:
        if self.provider is not provider:
            return True
        return self.answer.done() and not self.scopes and now - self.asked_at >= SCOPES_AGAIN


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
        pool: Callable[[str], WorkerPool],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pool`: runs calls to one provider, by its name."""
        self._ledger = ledger
        self._pool = pool
        self._membership = membership
        self._monotonic = monotonic
        self._taker = LeaseTaker(ledger, me, REAPER_LEASE, clock=clock, monotonic=monotonic)
        self._turns: dict[str, _Turn] = {}
        self._scopes: dict[str, _ScopesCall] = {}

    def learn(self, providers: Mapping[str, Provider]) -> None:
        """Ask for scopes that are not known, which may be calls to clouds: each beside the others,
        and waited for a moment only. To be called before `take`, whose caller waits for a ledger
        and must take no dead cloud for a silent one."""
        now = self._monotonic()
        new = []
        for name, provider in providers.items():
            call = self._scopes.get(name)
            if call is None or call.is_to_be_made_again(provider, now):
                answer = self._pool(name).submit(partial(_scopes_of, provider))
                self._scopes[name] = _ScopesCall(provider, answer, now)
                new.append(answer)
        wait(new, SCOPES_PATIENCE)

    def take(self, providers: Mapping[str, Provider]) -> Turns:
        """Take and renew leases, and look who else lives. Asks nobody but the ledger. Raises
        LedgerError."""
        now = self._monotonic()
        self._membership.update(self._ledger.engines.list(), now)
        before = {name for name, turn in self._turns.items() if turn.ours}
        ours = frozenset(name for name in providers if self._is_ours(name, now))
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

    def _is_ours(self, name: str, now: float) -> bool:
        turn, lease = self._turns.setdefault(name, _Turn()), self._lease(name)
        if now < turn.until:
            if not turn.given_up:
                self._taker.release(lease)
                turn.given_up = True
            turn.ours = not self._taker.another(lease)
        else:
            turn.ours = self._taker.take(lease, self._membership.is_dead)
        return turn.ours

    def _lease(self, name: str) -> str:
        """Name of the lease. Nodes whose providers of one name have other scopes, as those of local
        VMs on two hosts, reap each its own."""
        text = " ".join(sorted(map(str, self._scopes[name].scopes)))
        return f"{PREFIX}:{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _scopes_of(provider: Provider) -> frozenset[Scope]:
    return provider.scopes
