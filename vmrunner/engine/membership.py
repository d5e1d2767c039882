"""Who else is there. "Gone" is said at once only of a process that we can see to be gone; of the
others, by a lease that we watched run out ourselves.

Their clock does not matter: a heartbeat is a value that changes. One that has not changed for a
whole lease *while we watched* is stale; so neither a clock that is wrong nor a pause of everybody,
ourselves included, makes anybody look dead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from vmrunner.ledger.values import Member
from vmrunner.lib import process as processes
from vmrunner.model import Process

MEMBER_LEASE: Final = 60.0  # seconds without a beat
SLEEP_GAP: Final = (
    30.0  # between two of our own looks: we slept ourselves, so all counting restarts
)


@dataclass(slots=True)
class _Watch:
    value: float
    since: float


class Membership:
    """What this process knows of the others. `now` is a monotonic clock, in seconds."""

    def __init__(
        self,
        *,
        one_host: bool,
        alive: Callable[..., bool | None] = processes.alive,
        lease: float = MEMBER_LEASE,
    ) -> None:
        self._lock = threading.Lock()
        self._one_host = one_host
        self._alive = alive
        self._lease = lease
        self._members: dict[str, Member] = {}
        self._watched: dict[str, _Watch] = {}
        self._strangers: dict[Process, float] = {}
        self._now = 0.0
        self._looked: float | None = None

    def update(self, members: Iterable[Member], now: float) -> None:
        """Take in the ledger's list of members. One at a time, from whichever thread; all others
        only read."""
        with self._lock:
            if self._looked is not None and now - self._looked > SLEEP_GAP:
                self._watched.clear()
                self._strangers.clear()
            self._looked = self._now = now
            self._members = {member.id: member for member in members}
            for member in self._members.values():
                watch = self._watched.get(member.id)
                if watch is None or watch.value != member.seen_at:
                    self._watched[member.id] = _Watch(member.seen_at, now)
            for left in self._watched.keys() - self._members.keys():
                del self._watched[left]

    def member_gone(self, member: str | None) -> bool:
        """Is the holder of a claim gone? One that is not in the list has left it."""
        here = self._members.get(member or "")
        if here is None:
            return True
        lives = self._alive(here.process, one_host=self._one_host)
        return self._stale(here.id) if lives is None else not lives

    def process_lives(self, process: Process | None) -> bool | None:
        """Does a submitter live? None: there is none, or it cannot be told yet."""
        if process is None:
            return None
        lives = self._alive(process, one_host=self._one_host)
        if lives is not None:
            return lives
        beats = [m.id for m in self._members.values() if m.process == process]
        if beats:
            return not all(map(self._stale, beats))
        since = self._strangers.setdefault(process, self._now)
        return False if self._now - since >= self._lease else None

    def others(self, kinds: Iterable[str]) -> list[Member]:
        """Members of these kinds that are not gone."""
        wanted = set(kinds)
        return [
            m for m in self._members.values() if m.kind in wanted and not self.member_gone(m.id)
        ]

    def gone(self, *, before: float) -> list[str]:
        """Members that are gone, to be taken off the list: those whose last beat was before that,
        by the clock of the beats. Until then others learn from the list who they were."""
        old = [member.id for member in self._members.values() if member.seen_at < before]
        return [name for name in old if self.member_gone(name)]

    def _stale(self, member: str) -> bool:
        watch = self._watched.get(member)
        return watch is not None and self._now - watch.since >= self._lease
