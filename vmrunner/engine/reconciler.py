"""What an engine does with the builds that run: take over, listen, decide, apply.

The rows are read before the builds. A row that was read then has a build at least as new, so that
a row without a build that needs it is one that nobody needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vmrunner.core.lifecycle import End, InstanceSign, cancelled, end_of_sign, sign
from vmrunner.core.row_rules import dooms
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.membership import MEMBER_LEASE, SLEEP_GAP, Membership
from vmrunner.engine.poller import InstancePoller
from vmrunner.engine.sessions import ActiveSession, SessionManager
from vmrunner.engine.terminator import Terminator
from vmrunner.engine.wishes import wishes
from vmrunner.model import (
    Address,
    BuildRecord,
    BuildState,
    Death,
    Instance,
    InstanceState,
    Reason,
    Seen,
)

#: A session is told so long before `E`, so that it can hand over the last of its log.
LAST_WORDS: Final = 5.0
#: A session whose VM ended is waited for so long: it may have the build's exit code already.
HEARING: Final = 10.0

_DYING: Final = (InstanceState.DELETING, InstanceState.GONE)
_ENDED: Final = (InstanceSign.PREEMPTED, InstanceSign.SELF_ENDED, InstanceSign.LOST)


@dataclass(slots=True)
class Snapshot:
    """What one tick knows. `rows` are the open ones within our scopes, `mine` those of them that
    this engine answers for: its own, and those whose owner is gone. `unread`: ids of rows that
    cannot be read, of VMs and builds: nothing may be concluded about these."""

    everybody: list[Instance]
    rows: dict[str, Instance]
    builds: dict[str, BuildRecord]  # neither queued nor finished, or queued with a wish to end
    mine: dict[str, Instance]
    unread: frozenset[str]
    closed: set[str] = field(default_factory=set)  # in this very tick

    @property
    def open(self) -> set[str]:
        """The ids of all rows that are not closed, as far as we know, wherever they are."""
        return {row.id for row in self.everybody} - self.closed | self.unread

    def update(self, row: Instance) -> None:
        """Something of it changed in this very tick. The provider stays that which acts on it."""
        row = replace(row, provider=self.rows[row.id].provider)
        self.rows[row.id] = row
        self.mine[row.id] = row


class Reconciler:
    """The part of an engine that minds builds. Used by the tick's thread alone."""

    def __init__(
        self,
        context: EngineContext,
        membership: Membership,
        launcher: Launcher,
        sessions: SessionManager,
        completion: BuildCompletion,
        terminator: Terminator,
        poller: InstancePoller,
    ) -> None:
        self._context = context
        self._membership = membership
        self._launcher = launcher
        self._sessions = sessions
        self._completion = completion
        self._terminator = terminator
        self._poller = poller
        self._since = self._last = context.monotonic()

    @property
    def watching(self) -> float:
        """Seconds that we have watched without a break."""
        return self._context.monotonic() - self._since

    def gather(self) -> Snapshot:
        """Read the open rows, then the builds, then who is there: who claimed one of them joined
        before."""
        context = self._context
        now = context.monotonic()
        if now - self._last > SLEEP_GAP:
            self._since = now  # we slept: nobody's silence until now counts
        self._last = now
        everybody, driven = context.ledger.instances.open(), context.ledger.builds.driven()
        self._membership.update(context.ledger.engines.list(), now)
        builds = {build.id: build for build in driven}
        rows = {row.id: row for row in context.reached(everybody)}
        mine = {
            name: row
            for name, row in rows.items()
            if row.owner == context.id or self._membership.member_gone(row.owner)
        }
        unread = everybody.unread | driven.unread
        return Snapshot(everybody=everybody, rows=rows, builds=builds, mine=mine, unread=unread)

    # --- take over ---

    def take_over(self, view: Snapshot) -> None:
        """Become the owner of every build whose owner is gone and whose VM we may act on, or that
        has none any more."""
        for build in list(view.builds.values()):
            if build.state is BuildState.QUEUED or build.owner == self._context.id:
                continue
            if not self._membership.member_gone(build.owner):
                continue
            with self._context.guard("take over", build.id):
                if build.instance in view.rows or self._bare(view, build):
                    self._take(view, build)

    def _bare(self, view: Snapshot, build: BuildRecord) -> bool:
        """Has it no VM any more? Then whoever sees that its owner is gone may end it, or queue it
        again, whether or not it has the build's provider: that may have another name by now."""
        if build.instance in view.unread | {row.id for row in view.everybody}:
            return False
        if build.spec.provider in self._context.providers:
            return True
        row = self._context.ledger.instances.get(build.instance or "")
        return row.state is InstanceState.GONE  # else it was born after the rows were read

    def _take(self, view: Snapshot, build: BuildRecord) -> None:
        context = self._context
        taken = context.ledger.builds.take_over(
            build.id,
            seen_epoch=build.epoch,
            owner=context.id,
            until=context.clock() + MEMBER_LEASE,
            now=context.clock(),
        )
        if taken is None:
            del view.builds[build.id]
            view.mine.pop(build.instance or "", None)
            return
        log.info("took over %s from %s", build.id, build.owner)
        view.builds[build.id] = taken
        if taken.instance in view.rows:
            view.update(context.ledger.instances.get(taken.instance))

    # --- listen ---

    def collect_session_ends(self, view: Snapshot) -> None:
        """The last words of sessions that ended."""
        for said in self._sessions.ends():
            following, end = said.following, said.end
            build = view.builds.get(following.build.id)
            row = view.rows.get(following.instance.id)
            if end is None or build is None or build.epoch != following.epoch:
                continue  # it is another's by now
            if row is None or row.state in _DYING:
                continue  # `drive` ends it by what its VM died of
            if following.sign is not None and (end.lost or end.reason is Reason.VM_LOST):
                end = self._end_of_sign(build, row, following.sign)
            with self._context.guard("verdict", build.id):
                self._verdict(view, build, row, end)

    def _verdict(self, view: Snapshot, build: BuildRecord, row: Instance, end: End) -> None:
        """End the build; whatever comes of it, this tick has no more to do with it."""
        view.builds.pop(build.id, None)
        view.mine.pop(row.id, None)
        doomed = self._completion.verdict(build, row, end)
        if doomed is not None:
            view.update(doomed)

    # --- drive ---

    def advance(self, view: Snapshot) -> None:
        """See to it that each of our builds is where it should be."""
        for build in list(view.builds.values()):
            if build.state is BuildState.QUEUED:
                with self._context.guard("cancel", build.id):
                    self._completion.finish(build, cancelled(build.cancel or Reason.USER))
                    del view.builds[build.id]
                continue
            following = self._sessions.of(build.id)
            if following is not None and following.epoch != build.epoch:
                self._sessions.drop(build.id)
                following = None
            if build.owner == self._context.id:
                with self._context.guard("drive", build.id):
                    self._drive(view, build, following)
        for following in self._sessions.all():
            if following.build.id not in view.builds:
                self._sessions.drop(following.build.id)

    def _drive(self, view: Snapshot, build: BuildRecord, following: ActiveSession | None) -> None:
        row = view.rows.get(build.instance or "")
        if row is None or row.state is InstanceState.DELETING:
            self._bereaved(view, build, row)
        elif build.cancel is not None and build.state is not BuildState.HELD:
            if following is not None:
                self._sessions.stop(build.id, build.cancel)
            else:
                self._verdict(view, build, row, cancelled(build.cancel))
        elif following is not None:
            self._mind(view, build, row, following)
        elif row.state is InstanceState.REQUESTED:
            self._ask_again(build, row)
        elif row.address is not None and build.state is not BuildState.HELD:
            self._sessions.start(build, row)

    def _bereaved(self, view: Snapshot, build: BuildRecord, row: Instance | None) -> None:
        """Its VM dies or is gone."""
        self._sessions.drop(build.id)
        dead = row or self._context.ledger.instances.get(build.instance or "")
        if dead.state in _DYING:  # else it was born after the rows were read
            self._completion.dead(build, dead)
            del view.builds[build.id]

    def _mind(
        self, view: Snapshot, build: BuildRecord, row: Instance, following: ActiveSession
    ) -> None:
        """A session runs: tell it when its time is over; go on without it when it is silent."""
        if self._context.now(row) >= row.deadline - LAST_WORDS:
            self._sessions.stop(build.id, Reason.DEADLINE)
        if following.sign is not None and following.stopped_at is not None:
            silent = self._context.monotonic() - following.stopped_at
            if silent >= HEARING:
                self._sessions.drop(build.id)
                self._verdict(view, build, row, self._end_of_sign(build, row, following.sign))

    def _ask_again(self, build: BuildRecord, row: Instance) -> None:
        """The former owner wrote the intent; whether it asked, only the cloud knows. The identical
        order, sent again while its token lives, is the same VM."""
        young = self._context.now(row) < row.created_at + self._context.limits.limits.newborn / 2
        if young and not self._launcher.is_pending(row.id):
            self._launcher.adopt(build, row)

    # --- decide ---

    def mark_deleting(self, view: Snapshot) -> None:
        """The reaper's rules for rows, over our own: deadlines, wishes, and who is stuck."""
        context = self._context
        for name, provider in context.providers.items():
            rows = [row for row in view.mine.values() if row.provider == name]
            if not rows:
                continue
            now = provider.now()
            doomed = dooms(
                now,
                rows,
                now - self.watching,
                self._poller.since(rows, now),
                context.limits.limits,
                wishes(context, self._membership, rows, view.builds, view.unread),
            )
            for doom in doomed:
                row = view.rows[doom.instance]
                with context.guard("doom", row.build):
                    self._doom(view, row, doom.reason)

    def _doom(self, view: Snapshot, row: Instance, death: Death) -> None:
        context = self._context
        doomed = context.ledger.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=death, now=context.now(row)
        )
        if doomed is None:
            view.mine.pop(row.id, None)
            return
        self._launcher.drop(row.id)
        view.update(doomed)
        build = view.builds.get(row.build)
        if build is not None and build.instance == row.id and build.owner == context.id:
            self._bereaved(view, replace(build, epoch=doomed.epoch), doomed)

    # --- see ---

    def apply_observations(self, view: Snapshot, seen: Mapping[str, Seen]) -> None:
        """What the looks mean. What many show at once is written in one transaction."""
        dead: list[Instance] = []
        reached: list[tuple[Instance, Address]] = []
        for name, sight in seen.items():
            row = view.mine.get(name)
            if row is None:
                continue
            what = sign(row, sight)
            if what is InstanceSign.DEAD:
                dead.append(row)
            elif what is InstanceSign.REACHABLE and sight.address is not None:
                reached.append((row, sight.address))
            else:
                with self._context.guard("see", row.build):
                    self._see(view, row, sight, what)
        with self._context.guard("close"):
            self._close(view, dead)
        with self._context.guard("reach"):
            self._reach(view, reached)

    def _close(self, view: Snapshot, dead: list[Instance]) -> None:
        """They were to die, and they are seen dead."""
        for provider in {row.provider for row in dead}:
            own = [row for row in dead if row.provider == provider]
            entries = [(row.id, row.epoch, row.death or Death.DONE) for row in own]
            self._context.ledger.instances.close_all(entries, self._context.now(own[0]))
        for row in dead:
            self._terminator.done(row.id)
            view.mine.pop(row.id, None)
            view.closed.add(row.id)

    def _reach(self, view: Snapshot, reached: list[tuple[Instance, Address]]) -> None:
        """They can be connected to: a session each, unless it has one."""
        context = self._context
        fresh = [
            (row, address)
            for row, address in reached
            if self._driven_here(view, row) and self._sessions.of(row.build) is None
        ]
        noted = context.ledger.instances.addresses(
            [(row.id, row.epoch, address) for row, address in fresh]
        )
        for row, address in fresh:
            if row.id in noted:
                # The build as it is now: recorded since this tick read it, maybe.
                build = context.ledger.builds.get(row.build)
                if build.epoch == row.epoch:
                    self._sessions.start(build, replace(row, address=address))

    def _driven_here(self, view: Snapshot, row: Instance) -> bool:
        build = view.builds.get(row.build)
        return build is not None and build.instance == row.id and build.owner == self._context.id

    def _see(self, view: Snapshot, row: Instance, seen: Seen, what: InstanceSign) -> None:
        context = self._context
        if row.state is InstanceState.DELETING and row.ref is None:
            self._terminator.found(row.id, seen.ref)
        if not self._driven_here(view, row):
            return
        if what is InstanceSign.BORN:
            context.ledger.instances.record([(row.id, row.epoch, seen.ref)], context.now(row))
            context.wake()
        elif what in _ENDED:
            self._ended(view, view.builds[row.build], row, what, seen)

    def _ended(
        self, view: Snapshot, build: BuildRecord, row: Instance, what: InstanceSign, seen: Seen
    ) -> None:
        """The VM ended under its build. Its session may have the exit code already: ask it."""
        if build.state is BuildState.HELD:
            self._doom(view, row, Death.DONE)
        elif self._sessions.of(build.id) is not None:
            reason = Reason.PREEMPTED if what is InstanceSign.PREEMPTED else Reason.VM_LOST
            self._sessions.stop(build.id, reason, what)
        else:
            self._verdict(view, build, row, self._end_of_sign(build, row, what, seen))

    def _end_of_sign(
        self, build: BuildRecord, row: Instance, what: InstanceSign, seen: Seen | None = None
    ) -> End:
        expired = self._context.now(row) >= row.deadline
        if seen is None or seen.unfit is None:
            return end_of_sign(build, what, expired=expired)
        return end_of_sign(build, what, expired=expired, message=seen.detail, unfit=seen.unfit)
