"""The reaper's shell: list the cloud, read the ledger, decide, apply.

Past `E` a kill needs no ledger, so a sweep goes on without one. Inside `E` the row is compared
once more before each effect. Every provider, page, row and resource fails for itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from vmrunner import ids, lifecycle, reaper
from vmrunner.deleting import delete
from vmrunner.desk import Desk, log
from vmrunner.ending import Endings
from vmrunner.errors import LedgerError
from vmrunner.lifecycle import Sweep, cancelled, end_of
from vmrunner.model import (
    Death,
    Instance,
    InstanceState,
    Key,
    Power,
    Reason,
    Ref,
    Role,
    Seen,
)
from vmrunner.peers import Peers
from vmrunner.pending import Pending
from vmrunner.providers import Provider
from vmrunner.report import CLOSED, MARKED, Line, Report, failed, line_of, row_line, told
from vmrunner.surveying import Known, survey
from vmrunner.verdicts import Kill, Plan, Sighting

BATCH: Final = 100
FORCE_AFTER: Final = 3
#: The ends that whoever dooms the VM may write at once: no retry can follow them.
_FINAL: Final = (Death.EXPIRED, Death.CANCELLED, Death.ABANDONED)

#: What became of each: of a thing by its reference, since its id alone may be that of a VM and of
#: its disk; of a row by the row's id.
Told = dict[Ref | str, str]


class Reaping:
    """One reaper. `watching` says how long, in seconds, somebody has watched without a break: the
    engine's rule that nobody's silence before that counts."""

    def __init__(self, desk: Desk, peers: Peers, watching: Callable[[], float]) -> None:
        self._desk = desk
        self._peers = peers
        self._watching = watching
        self._endings = Endings(desk)
        self._pending: dict[str, Pending] = {}  # by provider
        self._again: set[str] = set()  # providers whose next pass sweeps too

    def run(
        self,
        *,
        sweep: bool = True,
        dry_run: bool = False,
        only: str | None = None,
        orphans: bool = False,
    ) -> Report:
        """One pass over every provider: the ledger, and the cloud where `sweep` or a hole says.
        `orphans`: those that the cap holds back too."""
        chosen = {n: p for n, p in self._desk.providers.items() if only in (None, n)}
        done = (
            self._guarded(n, p, sweep=sweep, dry_run=dry_run, orphans=orphans)
            for n, p in chosen.items()
        )
        report = sum(done, Report())
        return replace(report, unread=tuple(dict.fromkeys(report.unread)))

    def end_abandoned(self) -> int:
        """End the queued builds whose submitter is gone: they have no VM, and need no engine.
        How many there were."""
        ended = 0
        for build in self._desk.ledger.builds.queued():
            if self._peers.process_lives(build.submitter) is False:
                with self._desk.guard("owner gone", build.id):
                    self._endings.finish(build, cancelled(Reason.OWNER_GONE))
                    ended += 1
        return ended

    def unburied(self, only: str | None = None) -> int:
        """Look once more at what dies and nobody else minds; close what is seen dead. How many
        are left."""
        left = 0
        for row in self._desk.ledger.instances.open():
            provider = self._desk.provider_of(row)
            wanted = only in (None, row.provider) and row.state is InstanceState.DELETING
            if provider is None or not wanted or not self._peers.member_gone(row.owner):
                continue
            with self._desk.guard(f"look at {provider.name}"):
                left += not self._close_dead(provider, row, provider.look([row.key]).get(row.key))
        return left

    # --- one provider ---

    def _pending_at(self, name: str) -> Pending:
        return self._pending.setdefault(name, Pending())

    def _guarded(
        self, name: str, provider: Provider, *, sweep: bool, dry_run: bool, orphans: bool
    ) -> Report:
        try:
            return self._reap(name, provider, sweep=sweep, dry_run=dry_run, orphans=orphans)
        except Exception as error:  # noqa: BLE001 - one provider never stops the others
            log.exception("reaping %s", name)
            return Report(unread=(f"{name}: {type(error).__name__}: {error}",))

    def _reap(
        self, name: str, provider: Provider, *, sweep: bool, dry_run: bool, orphans: bool
    ) -> Report:
        desk = self._desk
        sweep = sweep or name in self._again
        swept = Sweep(id=ids.sweep_id(), begun=provider.now()) if sweep else None
        listing, known = survey(desk, self._peers, name, provider, sweep=sweep)
        broken = [f"{name}: {hole}" for hole in listing.holes]
        memory: frozenset[Sighting] = frozenset()
        try:
            if sweep and not known.down:
                memory = desk.ledger.sightings.list(name)
        except Exception as error:  # noqa: BLE001 - as in `survey`
            known.fail(error)
        broken += [f"the row of {row} cannot be read" for row in sorted(known.unread)]
        now = provider.now()
        plan = reaper.conclude(
            now,
            known.by_id,
            listing,
            memory,
            desk.limits.limits,
            desk.ledger.installation,
            # Without rows everything would look unknown: then nothing is of this generation.
            "" if known.down else desk.ledger.generation,
            sweep=None if known.down else swept,
            since=now - self._watching(),
            wishes=self._wishes(known),
            release=orphans,
        )
        pending = self._pending_at(name)
        if swept is not None:
            (self._again.add if listing.holes or plan.again else self._again.discard)(name)
            pending.learn(plan, listing)
            # What could not be read is known from before, and its time does not wait.
            condemned = {kill.ref for kill in plan.kills}
            unread = (kill for kill in pending.due(now) if kill.ref not in condemned)
            plan = replace(plan, kills=(*plan.kills, *unread))
        else:
            plan = replace(plan, kills=pending.due(now))
        lines = self._lines(name, now, plan, known)
        if not dry_run:
            done: Told = {}
            try:
                self._apply(provider, plan, known, done, seen=sweep)
                if swept is not None and not known.down:
                    desk.ledger.sightings.record(name, plan.sightings)
                    self._settle_images(provider)
            except LedgerError as error:  # what was killed before is told all the same
                known.fail(error)
            lines = [(of, replace(line, outcome=done.get(of, ""))) for of, line in lines]
        if known.down:
            broken.append(f"the ledger is out of reach: {known.down}")
        return Report(
            lines=tuple(line for _, line in lines), alarms=plan.alarms, unread=tuple(broken)
        )

    def _settle_images(self, provider: Provider) -> None:
        """Close the rows of images whose builders are gone: those are no instances."""
        ledger = self._desk.ledger
        with self._desk.guard("images"):
            if any(row.provider == provider.name for row in ledger.images.open()):
                from vmrunner.images import settling  # with all that makes images: seldom needed

                settling.settle(ledger, provider, self._desk.limits.limits.newborn)

    def _wishes(self, known: Known) -> dict[str, Death]:
        wishes = {}
        for row in known.by_id.values():
            if row.build in known.unread:
                continue  # whether it ended, nobody can tell
            if row.role is Role.BUILD and row.state is not InstanceState.GONE:
                build = known.builds.get(row.build)
                lives = self._peers.process_lives(build.submitter if build else None)
                desk = self._desk
                wish = lifecycle.wish(
                    build, row, now=desk.clock(), submitter=lives, there=desk.now(row)
                )
                if wish is not None:
                    wishes[row.id] = wish
        return wishes

    # --- applying ---

    def _apply(
        self, provider: Provider, plan: Plan, known: Known, done: Told, *, seen: bool
    ) -> None:
        """`done` takes what became of each. Kills past `E` come first: nothing may delay
        them. `seen`: what is killed was just listed, so that another look would tell nothing."""
        done |= self._kill(provider, [k for k in plan.kills if k.reason is Death.EXPIRED])
        self._pending_at(provider.name).answered(done)
        rows = dict(known.by_id)
        for doom in plan.dooms:
            with self._desk.guard("doom", rows[doom.instance].build):
                self._doom(rows, doom.instance, doom.reason, known)
        others = [k for k in plan.kills if k.reason is not Death.EXPIRED and self._still(k)]
        done |= self._kill(provider, others)
        dying = [row for row in rows.values() if self._dying(row)]
        if seen:
            dying = [row for row in dying if row.ref is None or row.ref not in done]
        done |= self._bury(provider, dying, done)
        for doom in plan.dooms:  # of those nobody could see, or whose turn is not now
            if rows[doom.instance].state is InstanceState.DELETING and not done.get(doom.instance):
                done[doom.instance] = MARKED
        for close in plan.closes:
            with self._desk.guard("close"):
                now = provider.now()
                closed = self._desk.ledger.instances.close(
                    close.instance, epoch=close.epoch, death=close.reason, now=now
                )
                done[close.instance] = CLOSED if closed else ""

    def _doom(self, rows: dict[str, Instance], name: str, death: Death, known: Known) -> None:
        desk = self._desk
        row = rows[name]
        doomed = desk.ledger.instances.doom(
            name, seen_epoch=row.epoch, death=death, now=desk.now(row)
        )
        if doomed is None:
            return
        rows[name] = doomed
        build = known.builds.get(row.build)
        if build is not None and build.instance == name and death in _FINAL:
            self._endings.finish(replace(build, epoch=doomed.epoch), end_of(build, death))

    def _still(self, kill: Kill) -> bool:
        """Is what condemned it, inside `E`, still so? All of it can only become so, never cease:
        a row that is closed, a reference that is recorded, an id that has no row."""
        instances = self._desk.ledger.instances
        with self._desk.guard("check"):
            rows = instances.these([kill.instance] if kill.instance else [])
            if kill.reason is Death.ORPHAN:
                return not instances.known([kill.instance or ""])
            if kill.reason is Death.LEFTOVER:
                return bool(rows) and rows[0].state is InstanceState.GONE
            if kill.reason is Death.DUPLICATE:
                return bool(rows) and rows[0].ref not in (None, kill.ref)
        return False

    def _kill(self, provider: Provider, kills: Iterable[Kill]) -> Told:
        """Delete resources. Past `E` there is no time to count attempts: what refuses to die is
        forced at once."""
        wanted, now = list(kills), provider.now()
        done = self._ask(provider, wanted)
        stubborn = [
            replace(kill, force=True)
            for kill in wanted
            if not kill.force and now > (kill.expires_at or now) and failed(done.get(kill.ref, ""))
        ]
        return done | self._ask(provider, stubborn)

    def _ask(self, provider: Provider, kills: Iterable[Kill]) -> Told:
        """Delete in batches, parents before children, by what they were asked before."""
        wanted = list(kills)
        done: Told = {}
        while wanted:
            first = wanted[0]
            alike = [k for k in wanted if k.force == first.force and k.ref.kind == first.ref.kind][
                :BATCH
            ]
            refs = {kill.ref for kill in alike}
            wanted = [kill for kill in wanted if kill.ref not in refs]
            outcomes = delete(provider, [kill.ref for kill in alike], force=first.force)
            done |= {ref: told(outcome) for ref, outcome in outcomes.items()}
        return done

    def _dying(self, row: Instance) -> bool:
        """Does this reaper delete it? Past `E` whoever owns it, inside `E` when nobody does."""
        if row.state is not InstanceState.DELETING or self._desk.provider_of(row) is None:
            return False
        now = self._desk.now(row)
        gone = self._peers.member_gone(row.owner)
        return now > row.deadline or (now >= row.delete_at and gone)

    def _bury(self, provider: Provider, rows: list[Instance], done: Told) -> Told:
        """Ask for the death of dying rows; close those that are seen dead. A look that fails saves
        nobody whose reference is known."""
        seen: dict[str, Ref] = {row.id: row.ref for row in rows if row.ref is not None}
        closed: Told = {}
        with self._desk.guard(f"look at {provider.name}"):
            keys: dict[Key, Instance] = {row.key: row for row in rows}
            sights = provider.look(list(keys)) if keys else {}
            seen = {}
            for key, sight in sights.items():
                row = keys[key]
                if self._close_dead(provider, row, sight):
                    closed[row.id] = CLOSED
                else:
                    seen[row.id] = sight.ref
        asked = [
            Kill(
                ref=seen[row.id],
                reason=row.death or Death.DONE,
                instance=row.id,
                force=row.deletes >= FORCE_AFTER,
                expires_at=row.deadline,
            )
            for row in rows
            if row.id in seen and seen[row.id] not in done
        ]
        answers = self._kill(provider, asked)
        for kill in asked:
            with self._desk.guard("note"):
                now = provider.now()
                self._desk.ledger.instances.tried(kill.instance or "", now, now + 30.0)
        asked_of: Told = {k.instance or "": answers.get(k.ref, "") for k in asked}
        return {**closed, **asked_of, **answers}

    def _close_dead(self, provider: Provider, row: Instance, seen: Seen | None) -> bool:
        """Close the row of a dying VM that is seen dead."""
        if seen is None or seen.power is not Power.DEAD:
            return False
        return self._desk.ledger.instances.close(
            row.id, epoch=row.epoch, death=row.death or Death.DONE, now=provider.now()
        )

    # --- telling ---

    def _lines(
        self, name: str, now: float, plan: Plan, known: Known
    ) -> list[tuple[Ref | str, Line]]:
        """Each by what its outcome is told of."""
        rows = known.by_id
        lines: list[tuple[Ref | str, Line]] = [
            (kill.ref, line_of(name, now, kill, rows.get(kill.instance or "")))
            for kill in plan.kills
        ]
        killed = {kill.instance for kill in plan.kills}
        rest = [(doom.instance, "delete", doom.reason) for doom in plan.dooms]
        rest += [(close.instance, "close", close.reason) for close in plan.closes]
        for instance, what, reason in rest:
            if instance not in killed or what == "close":
                lines.append((instance, row_line(name, now, rows[instance], what, reason)))
        return lines
