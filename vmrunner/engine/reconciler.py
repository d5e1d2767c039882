"""The reconciler of running builds: take over, listen, decide, apply. See `snapshot` for what it
knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from vmrunner.core.lifecycle import (
    ENDED,
    SCARCE,
    End,
    InstanceSign,
    cancelled,
    end_of_sign,
    is_coming,
    sign,
)
from vmrunner.core.row_rules import marks
from vmrunner.engine import lifecycle_log
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.deadlines import DeadlineArmer
from vmrunner.engine.early_deaths import early_deaths
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.membership import MEMBER_LEASE, Membership
from vmrunner.engine.poller import InstancePoller
from vmrunner.engine.pools import PoolManager
from vmrunner.engine.sessions import ActiveSession, SessionManager
from vmrunner.engine.snapshot import Snapshot, SnapshotReader
from vmrunner.engine.terminator import Terminator
from vmrunner.engine.work_selection import WorkSelector, last_moment
from vmrunner.model import (
    DYING,
    Address,
    BuildRecord,
    BuildState,
    Death,
    Instance,
    InstanceState,
    Reason,
    Seen,
    Start,
)

#: A session whose VM ended is waited for so long: it may have the build's exit code already.
SESSION_GRACE: Final = 10.0
#: Seconds between two ticks after which we slept ourselves.
SLEEP_GAP: Final = 30.0


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
        pools: PoolManager,
        deadlines: DeadlineArmer,
    ) -> None:
        self._context = context
        self._deadlines = deadlines
        self._membership = membership
        self._launcher = launcher
        self._sessions = sessions
        self._completion = completion
        self._terminator = terminator
        self._poller = poller
        self._pools = pools
        self._reader = SnapshotReader(context, membership)
        self._work = WorkSelector(context, sessions, self._settled)
        self._since = self._last = context.monotonic()

    @property
    def watching(self) -> float:
        """Seconds that we have watched without a break."""
        return self._context.monotonic() - self._since

    def gather(self) -> Snapshot:
        """Read what this tick knows, and whether we watched without a break."""
        now = self._context.monotonic()
        if now - self._last > SLEEP_GAP:
            self._since = now  # we slept: no silence until now counts
        self._last = now
        snapshot = self._reader.read()
        self._work.pick(snapshot)
        return snapshot

    def finish(self) -> None:
        """Note that the tick came to its end. One that failed is made up for by the next."""
        self._reader.finish()

    def _settled(self) -> Callable[[Instance], bool]:
        knows, armed, pending = self._poller.knows, self._deadlines.settled(), self._launcher
        return lambda row: knows(row) and armed(row) and not pending.is_pending(row.id)

    # --- builds whose owner is gone ---

    def take_over(self, snapshot: Snapshot) -> None:
        """Become the owner of every build whose owner is gone and whose VM we may act on, or that
        has none any more. A cancelled one whose VM is out of our reach ends here: its VM dies when
        it is reached.

        The new owner may report everything again that the former one did: states, events and log
        bytes that are stored already are not stored twice, the VM's supervisor starts an attempt
        once, and the identical order makes no second VM."""
        for build in snapshot.orphaned:
            if build.state is BuildState.QUEUED:
                continue
            with self._context.guard("take over", build.id):
                if build.instance in snapshot.rows or self._has_no_vm(snapshot, build):
                    self._take(snapshot, build)
                    continue
                row = snapshot.everybody.get(build.instance or "")
                if build.cancel is not None and row is not None:
                    self._completion.finish(build, cancelled(build.cancel), row=row)
                    del snapshot.builds[build.id]

    def _has_no_vm(self, snapshot: Snapshot, build: BuildRecord) -> bool:
        """True if it has no VM any more. Then any engine that sees its owner gone may end it, or
        queue it again, whether or not it has the build's provider: that may have been renamed."""
        if build.instance in snapshot.unread or build.instance in snapshot.everybody:
            return False
        if build.spec.provider in self._context.providers:
            return True
        row = self._context.ledger.instances.get(build.instance or "")
        return row.state is InstanceState.GONE  # else it was born after the rows were read

    def _take(self, snapshot: Snapshot, build: BuildRecord) -> None:
        context = self._context
        taken = context.ledger.builds.take_over(
            build.id,
            seen_epoch=build.epoch,
            owner=context.id,
            until=context.clock() + MEMBER_LEASE,
            now=context.clock(),
        )
        if taken is None:
            del snapshot.builds[build.id]
            snapshot.mine.pop(build.instance or "", None)
            return
        log.info("took over %s from %s", build.id, build.owner)
        snapshot.builds[build.id] = taken
        snapshot.restless.add(build.id)
        if taken.instance in snapshot.rows:
            snapshot.update(context.ledger.instances.get(taken.instance))

    # --- what sessions reported ---

    def collect_session_ends(self, snapshot: Snapshot) -> None:
        """Take in the ends of sessions. Most end a build, and share a commit."""
        together: list[tuple[BuildRecord, Instance, End]] = []
        for session_end in self._sessions.ends():
            active, end = session_end.active, session_end.end
            build = snapshot.builds.get(active.build.id)
            row = snapshot.rows.get(active.instance.id)
            if end is None or build is None or build.epoch != active.epoch:
                continue  # it is another's by now
            if row is None or row.state in DYING:
                continue  # `advance` ends it by what its VM died of
            if active.sign is not None and (end.lost or end.reason is Reason.VM_LOST):
                end = self._end_of_sign(build, row, active.sign)
            if self._completion.ends(build, row, end):
                self._drop(snapshot, build, row)
                together.append((build, row, end))
                continue
            with self._context.guard("verdict", build.id):
                self._finish(snapshot, build, row, end)
        for (build, _, _), outcome in zip(
            together, self._completion.finish_all(together), strict=True
        ):
            with self._context.guard("verdict", build.id):
                if isinstance(outcome, Exception):
                    raise outcome
                if outcome is not None:
                    snapshot.update(outcome)

    def _finish(self, snapshot: Snapshot, build: BuildRecord, row: Instance, end: End) -> None:
        """End the build, which may be queued again or held."""
        self._drop(snapshot, build, row)
        dying = self._completion.verdict(build, row, end)
        if dying is not None:
            snapshot.update(dying)

    @staticmethod
    def _drop(snapshot: Snapshot, build: BuildRecord, row: Instance) -> None:
        """Take out what this tick has no more to do with, whatever comes of its end."""
        snapshot.builds.pop(build.id, None)
        snapshot.mine.pop(row.id, None)

    # --- where builds should be ---

    def advance(self, snapshot: Snapshot) -> None:
        """See to it that each of our builds is where it should be."""
        for build in snapshot.restless_builds():
            if build.state is BuildState.QUEUED:
                with self._context.guard("cancel", build.id):
                    self._completion.finish(build, cancelled(build.cancel or Reason.USER))
                    del snapshot.builds[build.id]
                continue
            active = self._sessions.of(build.id)
            if active is not None and active.epoch != build.epoch:
                self._sessions.drop(build.id)
                active = None
            if build.owner == self._context.id:
                with self._context.guard("drive", build.id):
                    self._drive(snapshot, build, active)
        sessions, changed = self._sessions.builds(), snapshot.changed
        for name in sorted((sessions if changed is None else changed) - snapshot.builds.keys()):
            if name in sessions:
                self._sessions.drop(name)

    def _drive(self, snapshot: Snapshot, build: BuildRecord, active: ActiveSession | None) -> None:
        row = snapshot.rows.get(build.instance or "")
        if row is None or row.state is InstanceState.DELETING:
            self._end_without_vm(snapshot, build, row)
        elif build.cancel is not None and build.state is not BuildState.HELD:
            if active is not None:
                self._sessions.stop(build.id, build.cancel)
            else:
                self._finish(snapshot, build, row, cancelled(build.cancel))
        elif active is not None:
            self._check_session(snapshot, build, row, active)
        elif row.state is InstanceState.REQUESTED:
            self._resend_order(build, row)
        elif row.state is InstanceState.WAKING:
            pass  # the address that it had is another's by now
        elif row.address is not None and build.state is not BuildState.HELD:
            self._sessions.start(build, row)

    def _end_without_vm(self, snapshot: Snapshot, build: BuildRecord, row: Instance | None) -> None:
        """End a build whose VM dies or is gone."""
        self._sessions.drop(build.id)
        dead = row or self._context.ledger.instances.get(build.instance or "")
        if dead.state in DYING:  # else it was born after the rows were read
            self._completion.dead(build, dead)
            del snapshot.builds[build.id]

    def _check_session(
        self, snapshot: Snapshot, build: BuildRecord, row: Instance, active: ActiveSession
    ) -> None:
        """A session runs: tell it when its time is over; go on without it when it is silent."""
        if self._context.now(row) >= last_moment(build, row):
            self._sessions.stop(build.id, Reason.DEADLINE)
        if active.sign is not None and active.stopped_at is not None:
            silent = self._context.monotonic() - active.stopped_at
            if silent >= SESSION_GRACE:
                self._sessions.drop(build.id)
                self._finish(snapshot, build, row, self._end_of_sign(build, row, active.sign))

    def _resend_order(self, build: BuildRecord, row: Instance) -> None:
        """The former owner wrote the intent; whether it asked, only the cloud knows. The identical
        order, sent again while its token lives, is the same VM."""
        young = self._context.now(row) < row.created_at + self._context.limits.limits.newborn / 2
        if young and not self._launcher.is_pending(row.id):
            self._launcher.adopt(build, row)

    # --- what must die ---

    def mark_deleting(self, snapshot: Snapshot) -> None:
        """The reaper's rules for rows, over our own: deadlines, early deaths, stuck VMs."""
        context = self._context
        for now, rows in context.timed(snapshot.restless_rows()):
            found = marks(
                now,
                rows,
                now - self.watching,
                self._poller.since(rows, now),
                context.limits.limits,
                early_deaths(context, self._membership, rows, snapshot.builds, snapshot.unread),
            )
            for mark in found:
                row = snapshot.rows[mark.instance]
                with context.guard("mark", row.build):
                    self._mark(snapshot, row, mark.reason)

    def _mark(self, snapshot: Snapshot, row: Instance, death: Death) -> None:
        context = self._context
        dying = context.ledger.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=death, now=context.now(row)
        )
        if dying is None:
            snapshot.mine.pop(row.id, None)
            return
        self._launcher.drop(row.id)
        snapshot.update(dying)
        build = snapshot.builds.get(row.build or "")
        if build is not None and build.instance == row.id and build.owner == context.id:
            self._end_without_vm(snapshot, replace(build, epoch=dying.epoch), dying)

    # --- what looks showed ---

    def apply_observations(self, snapshot: Snapshot, seen: Mapping[str, Seen]) -> None:
        """Apply what the looks mean. What many show at once is written in one transaction."""
        context = self._context
        started: list[tuple[str, int, Start]] = []
        dead: list[Instance] = []
        reached: list[tuple[Instance, Address]] = []
        containers: dict[str, str] = {}  # by instance
        signs: list[tuple[Instance, Seen, InstanceSign]] = []
        for name, observation in seen.items():
            row = snapshot.mine.get(name)
            if row is None:
                continue
            if observation.start is not None and row.start is None:
                started.append((row.id, row.epoch, observation.start))
            what = sign(row, observation)
            if what is InstanceSign.DEAD:
                dead.append(row)
            elif what is InstanceSign.REACHABLE and observation.address is not None:
                reached.append((row, observation.address))
                if observation.container is not None and self._is_by_tag(snapshot, row):
                    containers[row.id] = observation.container
            elif what is not InstanceSign.NOTHING or row.state is InstanceState.DELETING:
                signs.append((row, observation, what))
        with context.guard("start"):
            context.ledger.instances.note_starts(started)
        for row, observation, what in signs:
            with context.guard("see", row.build):
                self._apply(snapshot, row, observation, what)
        with context.guard("close"):
            self._close(snapshot, dead)
        with context.guard("reach"):
            self._reach(snapshot, reached, containers)

    def _close(self, snapshot: Snapshot, dead: list[Instance]) -> None:
        """They were to die, and they are seen dead."""
        for now, rows in self._context.timed(dead):
            entries = [(row.id, row.epoch, row.death or Death.DONE) for row in rows]
            closed = self._context.ledger.instances.close_all(entries, now)
            for row in (row for row in rows if row.id in closed):
                lifecycle_log.gone(row, row.death or Death.DONE)
        for row in dead:
            self._terminator.done(row.id)
            snapshot.mine.pop(row.id, None)
            snapshot.closed.add(row.id)

    def _reach(
        self,
        snapshot: Snapshot,
        reached: list[tuple[Instance, Address]],
        containers: Mapping[str, str],
    ) -> None:
        """They can be connected to: a session each, unless it has one; a pool's are warmed up.
        `containers`, by instance, are noted before anything runs in them."""
        context = self._context
        fresh = [
            (row, address)
            for row, address in reached
            if (row.build is None and row.owner == context.id)
            or (self._driven_here(snapshot, row) and self._sessions.of(row.build or "") is None)
        ]
        if not fresh:
            return
        context.ledger.instances.note_containers(
            [(row.id, row.epoch, containers[row.id]) for row, _ in fresh if row.id in containers],
            context.clock(),
        )
        noted = context.ledger.instances.addresses(
            [(row.id, row.epoch, address) for row, address in fresh]
        )
        named = [(replace(row, address=at), row.build) for row, at in fresh if row.id in noted]
        # The builds as they are now: recorded since this tick read them, maybe.
        builds = {
            build.id: build
            for build in context.ledger.builds.get_all(name for _, name in named if name)
        }
        for row, name in named:
            if name is None:
                self._pools.reached(row)
            elif builds[name].epoch == row.epoch:
                self._sessions.start(builds[name], row)

    @staticmethod
    def _is_by_tag(snapshot: Snapshot, row: Instance) -> bool:
        """True if it is not known yet which digest the container of a unit has."""
        build = snapshot.builds.get(row.build or "")
        return row.container is None and (build is None or "@" not in build.spec.container)

    def _driven_here(self, snapshot: Snapshot, row: Instance) -> bool:
        build = snapshot.builds.get(row.build or "")
        return build is not None and build.instance == row.id and build.owner == self._context.id

    def _apply(self, snapshot: Snapshot, row: Instance, seen: Seen, what: InstanceSign) -> None:
        context = self._context
        if row.state is InstanceState.DELETING and row.ref is None:
            self._terminator.found(row.id, seen.ref)
        if row.build is None:
            self._pools.observe(snapshot, row, seen, what)
            return
        if not self._driven_here(snapshot, row):
            return
        if what is InstanceSign.BORN:
            context.ledger.instances.record([(row.id, row.epoch, seen.ref)], context.now(row))
            context.wake()
        elif what in ENDED:
            self._ended(snapshot, snapshot.builds[row.build], row, what, seen)

    def _ended(
        self, snapshot: Snapshot, build: BuildRecord, row: Instance, what: InstanceSign, seen: Seen
    ) -> None:
        """The VM ended under its build. Its session may have the exit code already: ask it."""
        if build.state is BuildState.HELD:
            self._mark(snapshot, row, Death.DONE)
        elif seen.unfit in SCARCE and self._may_wait(build, row):
            self._drop(snapshot, build, row)
            if (dying := self._completion.unfit(build, row, seen.detail)) is not None:
                snapshot.update(dying)
        elif self._sessions.of(build.id) is not None:
            reason = Reason.PREEMPTED if what is InstanceSign.PREEMPTED else Reason.VM_LOST
            self._sessions.stop(build.id, reason, what)
        else:
            self._finish(snapshot, build, row, self._end_of_sign(build, row, what, seen))

    def _may_wait(self, build: BuildRecord, row: Instance) -> bool:
        """True if the build may be queued again: what ran once does not run again unasked."""
        return is_coming(build) and self._context.now(row) < row.end and build.cancel is None

    def _end_of_sign(
        self, build: BuildRecord, row: Instance, what: InstanceSign, seen: Seen | None = None
    ) -> End:
        expired = self._context.now(row) >= row.end
        if seen is None:
            return end_of_sign(build, what, expired=expired)
        return end_of_sign(build, what, expired=expired, message=seen.detail, unfit=seen.unfit)
