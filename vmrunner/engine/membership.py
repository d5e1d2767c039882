"""Liveness of other engines. A process on this host is dead when the kernel says so; any other,
when its heartbeat has not changed for a full lease while we were watching.

Their clock does not matter then (`lib.change_watch`), nor does a pause of all, ourselves included.
Only a process that was just started has watched none: it goes by the database's clock (`beats`,
`seems_alive`), and must decide nothing by that in which being wrong does harm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from vmrunner.core.lifecycle import FORGOTTEN
from vmrunner.lib import process as processes
from vmrunner.lib.change_watch import ChangeWatch
from vmrunner.model import BuildRecord, Pool, Process

if TYPE_CHECKING:
    from vmrunner.ledger.transfer_types import Member

MEMBER_LEASE: Final = 60.0  # seconds without a beat
CANCEL_WATCH: Final = 3600.0  # for this long a cancelled build may be watched


def beats(member: Member, now: float) -> bool:
    """Return True if there was a beat within the last lease. `now`: by the clock that all share
    (`Engines.now`)."""
    return abs(now - member.beat_at) < MEMBER_LEASE


def seems_alive(member: Member, now: float, *, one_host: bool) -> bool:
    """Return True if its process lives, as far as can be told without watching it. Where the kernel
    cannot tell, its last beat does."""
    lives = processes.alive(member.process, one_host=one_host)
    return beats(member, now) if lives is None else lives


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
        self._members: dict[str, Member] = {}
        self._beats: ChangeWatch[str] = ChangeWatch(lease)
        self._lists: ChangeWatch[None] = ChangeWatch(lease)  # how long we have looked at all
        self._watching = 0.0
        self._strangers: dict[Process, float] = {}  # how long we had looked when first asked
        self._pools: ChangeWatch[str] = ChangeWatch(FORGOTTEN)
        self._cancels: ChangeWatch[str] = ChangeWatch(CANCEL_WATCH)
        self._now = 0.0

    def update(self, members: Iterable[Member], now: float) -> None:
        """Take in the ledger's list of members. One at a time, from whichever thread; all others
        only read."""
        with self._lock:
            self._now = now
            self._watching = self._lists.look(None, None, now)
            if not self._watching:
                self._strangers.clear()
            self._members = {member.id: member for member in members}
            for member in self._members.values():
                self._beats.look(member.id, member.seen_at, now)
            self._beats.keep(self._members.keys())
            self._pools.tidy(now)
            self._cancels.tidy(now)

    def member_gone(self, member: str | None) -> bool:
        """True if the holder of a claim is gone. One that is not in the list has left it; one that
        knows other tables than the ledger has drives nothing any more."""
        found = self._members.get(member or "")
        if found is None or found.outdated:
            return True
        lives = self._alive(found.process, one_host=self._one_host)
        return self._beats.silent(found.id) if lives is None else not lives

    def last_beat(self, member: str | None) -> float | None:
        """The time of a member's last beat, by its own host's clock; None: it is not on the
        list."""
        found = self._members.get(member or "")
        return None if found is None else found.seen_at

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
            return not all(map(self._beats.silent, beats))
        since = self._strangers.setdefault(process, self._watching)
        return False if self._watching - since >= self._lists.lease else None

    def pool_forgotten(self, pool: Pool) -> bool:
        """True if no process has named it among its pools for as long as it takes to be
        forgotten, while we watched."""
        with self._lock:
            return self._pools.look(pool.name, pool.named_at, self._now) >= FORGOTTEN

    def cancelled_for(self, build: BuildRecord) -> float:
        """Seconds for which a build has been cancelled at least, as far as we watched."""
        with self._lock:
            return self._cancels.look(build.id, build.cancelled_at, self._now)

    def gone(self, *, before: float) -> list[str]:
        """Members that are gone, to be taken off the list: those whose last beat was before that,
        by the clock of the beats. Until then others learn from the list who they were."""
        old = [member.id for member in self._members.values() if member.seen_at < before]
        return [name for name in old if self.member_gone(name)]
