"""Liveness of other engines. A process on this host is dead when the kernel says so; any other,
when its heartbeat has not changed for a full lease while we were watching.

Their clock does not matter then: a heartbeat is a value that changes. So neither a clock that is
wrong nor a pause of everybody, ourselves included, makes anybody look dead. Only a process that
was just started has watched nobody: it goes by the wall clock (`beats`, `seems_alive`), and must
decide nothing by that in which being wrong does harm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.lib import process as processes
from vmrunner.model import Process

if TYPE_CHECKING:
    from vmrunner.ledger.values import Member

MEMBER_LEASE: Final = 60.0  # seconds without a beat
#: Between two of our own looks: we slept ourselves, so all counting restarts.
SLEEP_GAP: Final = 30.0


def beats(member: Member, now: float) -> bool:
    """Return True if there was a beat within the last lease, by the wall clock `now`."""
    return abs(now - member.seen_at) < MEMBER_LEASE


def seems_alive(member: Member, now: float, *, one_host: bool) -> bool:
    """Return True if its process lives, as far as can be told without watching it. Where the kernel
    cannot tell, its last beat does."""
    lives = processes.alive(member.process, one_host=one_host)
    return beats(member, now) if lives is None else lives


@dataclass(slots=True)
class _Watch:
    value: float
    since: float


class Membership:
    """This process's knowledge of the other engines. `now` is a monotonic clock, in seconds."""

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
        """True if the holder of a claim is gone. One that is not in the list has left it; one that
        knows other tables than the ledger has drives nothing any more."""
        here = self._members.get(member or "")
        if here is None or here.outdated:
            return True
        lives = self._alive(here.process, one_host=self._one_host)
        return self._stale(here.id) if lives is None else not lives

    def last_beat(self, member: str | None) -> float | None:
        """Return when a member on the list beat last, by its own host's clock."""
        here = self._members.get(member or "")
        return None if here is None else here.seen_at

    def is_dead(self, member: str | None) -> bool:
        """True if a member on the list is gone: one that is not may have joined just now."""
        return member in self._members and self.member_gone(member)

    def process_lives(self, process: Process | None) -> bool | None:
        """True if a submitter lives. None: there is none, or it cannot be told yet."""
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

    def gone(self, *, before: float) -> list[str]:
        """Members that are gone, to be taken off the list: those whose last beat was before that,
        by the clock of the beats. Until then others learn from the list who they were."""
        old = [member.id for member in self._members.values() if member.seen_at < before]
        return [name for name in old if self.member_gone(name)]

    def _stale(self, member: str) -> bool:
        watch = self._watched.get(member)
        return watch is not None and self._now - watch.since >= self._lease
