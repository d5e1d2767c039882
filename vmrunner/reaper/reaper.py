"""The reaper's shell: list the cloud, read the ledger, decide, apply.

Past `E` a kill needs no ledger, so a sweep goes on without one. Inside `E` the row is compared
once more before each effect. Every provider, page, row and resource fails for itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from vmrunner.core import reap_rules
from vmrunner.core.lifecycle import SweepId, cancelled, end_of
from vmrunner.core.reachability import Reachability
from vmrunner.core.reap_plan import Deletion, ReapPlan, Sighting
from vmrunner.core.reap_rules import ReapInput
from vmrunner.core.sweep_view import SweepView
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import WorkContext, log
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.lib import ids
from vmrunner.model import (
    Death,
    Instance,
    InstanceState,
    Key,
    Kind,
    Power,
    Reason,
    Ref,
    Resource,
    Scope,
)
from vmrunner.providers import Provider
from vmrunner.providers.deletion import DELETE_RETRY, FORCE_AFTER, delete_until_dead
from vmrunner.providers.retired_providers import RetiredProvider, parts
from vmrunner.reaper import image_kills
from vmrunner.reaper.gather import LedgerView, gather
from vmrunner.reaper.kills import kill
from vmrunner.reaper.ledger_calls import AsksLedger, at_once
from vmrunner.reaper.pending_kills import PendingKills
from vmrunner.reaper.recheck import still_condemned, was_extended
from vmrunner.reaper.report import (
    CLOSED,
    MARKED,
    NOTHING,
    LineFate,
    Outcomes,
    Report,
    line_of,
    lines_of,
)
from vmrunner.reaper.side_by_side import LOST, ConcurrentPasses

#: The ends that whoever marks the VM may write at once: no retry can follow them. DONE: its build's
#: time was over.
_FINAL: Final = (Death.EXPIRED, Death.CANCELLED, Death.ABANDONED, Death.DONE)

_ANSWERS: Final = (LineFate.ACCEPTED, LineFate.MISSING, LineFate.FAILED)

#: What a pass over one provider is.
PASS, SWEEP, OVERDUE = "pass", "sweep", "overdue"
HOLE: Final = 30.0  # seconds until a hole is looked at again, doubled each time


@dataclass(frozen=True, slots=True)
class SweepRetry:
    """The time, monotonic, at which a provider is swept before its turn, and for the how-manieth
    time in a row there was a hole."""

    when: float
    tries: int


class Reaper:
    """One reaper. `watching` says how long, in seconds, somebody has watched without a break: the
    engine's rule that nobody's silence before that counts. `ask` puts its questions to the
    ledger."""

    def __init__(
        self,
        context: WorkContext,
        membership: Membership,
        watching: Callable[[], float],
        ask: AsksLedger = at_once,
    ) -> None:
        self._context = context
        self._ask = ask
        self._membership = membership
        self._watching = watching
        self._completion = BuildCompletion(context)
        self._open_rows = context.ledger.open_rows()
        self._rounds = ConcurrentPasses(context.reap_threads, context.monotonic)
        self._pending: dict[str, PendingKills] = {}  # by provider
        self._reachability: dict[str, Reachability] = {}  # by provider: the places of open rows
        self._again: dict[str, SweepRetry] = {}  # providers that are swept before their time

    def run(
        self,
        *,
        sweep: bool = True,
        dry_run: bool = False,
        only: Collection[str] | None = None,
        orphans: bool = False,
        seconds: float = LOST,
    ) -> Report:
        """One pass over every provider (of `only`), side by side: the ledger, and the cloud where
        `sweep` or a hole says. `orphans`: those that the cap holds back too. What takes longer than
        `seconds` goes on, and a later pass tells of it."""
        passes: dict[tuple[str, str], Callable[[], Report]] = {}
        for name, provider in self._drivers(only):
            early = not self._rounds.busy(name, SWEEP) and self._due_again(name)
            passes[name, SWEEP if sweep or early else PASS] = partial(
                self._guarded, name, provider,
                sweep=sweep or early, dry_run=dry_run, orphans=orphans,
            )  # fmt: skip
        report = self._rounds.run(passes, seconds)
        return replace(report, unread=tuple(dict.fromkeys(report.unread)))

    def kill_overdue(
        self, only: Collection[str] | None = None, *, late: float, seconds: float = LOST
    ) -> Report:
        """Kill what is known to have been past its deadline for `late` seconds, without a question
        to the ledger: so late, whoever should have seen to it waits for that. Rows are left to the
        pass that reads them again."""
        passes: dict[tuple[str, str], Callable[[], Report]] = {}
        for name, provider in self._drivers(only):
            due = self._pending_at(provider.name).overdue(provider.now(), late)
            mine = [one for one in self._its(provider, due) if not image_kills.is_image(one)]
            if mine:
                passes[name, OVERDUE] = partial(self._kill_known, provider, mine)
        return self._rounds.run(passes, seconds)

    def end_abandoned(self) -> int:
        """End the queued builds whose submitter is gone: they have no VM, and need no engine.
        How many there were."""
        ended = 0
        for build in self._context.ledger.builds.queued():
            if self._membership.process_lives(build.submitter) is False:
                with self._context.guard("owner gone", build.id):
                    self._completion.finish(build, cancelled(Reason.OWNER_GONE))
                    ended += 1
        return ended

    def close_dying(self, seconds: float, *, only: str | None = None) -> None:
        """Wait at most `seconds` for the death of what dies and nobody else minds; close what is
        seen dead."""
        until = self._context.monotonic() + seconds
        for row in self._context.ledger.instances.open():
            provider = self._context.provider_of(row)
            wanted = only in (None, row.provider) and row.state is InstanceState.DELETING
            if provider is None or not wanted or not self._membership.member_gone(row.owner):
                continue
            left = until - self._context.monotonic()
            vms = {row.key: row.ref}
            if delete_until_dead(provider, vms, ask=False, seconds=left, pause=0.25).dead:
                self._close_dead(provider, row)

    def _drivers(self, only: Collection[str] | None) -> list[tuple[str, Provider]]:
        """Return the drivers of these providers, the former ones of a name too."""
        chosen = [i for i in self._context.providers.items() if only is None or i[0] in only]
        return [part for item in chosen for part in parts(*item).items()]

    # --- one provider ---

    def _kill_known(self, provider: Provider, kills: list[Deletion]) -> Report:
        try:
            done = kill(provider, kills)
        except Exception as error:  # noqa: BLE001 - one provider never stops the others
            log.exception("reaping %s", provider.name)
            return Report(unread=(f"{provider.name}: {type(error).__name__}: {error}",))
        self._pending_at(provider.name).answered(done)
        now = provider.now()
        lines = [line_of(provider.name, now, k, None, done.get(k.ref, NOTHING)) for k in kills]
        return Report(lines=tuple(lines))

    def _due_again(self, name: str) -> bool:
        again = self._again.get(name)
        return again is not None and self._context.monotonic() >= again.when

    def _look_again(self, name: str, plan: ReapPlan, sweep_view: SweepView) -> None:
        """Plan a sweep before it is time. What goes after its parent: at once. A hole may be the
        moment's: at once, and then ever more rarely."""
        now, tries = self._context.monotonic(), 0
        if sweep_view.holes:
            former = self._again.get(name)
            tries = former.tries + 1 if former else 1
        if plan.again or tries == 1:
            self._again[name] = SweepRetry(now, tries)
        elif tries:
            self._again[name] = SweepRetry(now + HOLE * 2 ** min(tries, 10), tries)
        else:
            self._again.pop(name, None)

    def _note_visible(self, name: str, sweep_view: SweepView, known: LedgerView) -> None:
        """Note which places answered."""
        reachability = self._reachability.setdefault(name, Reachability())
        for scope in {row.scope for row in known.by_id.values()}:
            if (scope, Kind.INSTANCE) in sweep_view.whole:
                reachability.record(scope, self._context.monotonic())
            else:
                reachability.lost(scope)

    def _visible_since(self, name: str, now: float, known: LedgerView) -> dict[Scope, float]:
        reachability = self._reachability.setdefault(name, Reachability())
        scopes = {row.scope for row in known.by_id.values()}
        return reachability.since(scopes, self._context.monotonic(), now)

    def _pending_at(self, name: str) -> PendingKills:
        return self._pending.setdefault(name, PendingKills())

    def _due(self, provider: Provider, now: float) -> dict[Ref, Deletion]:
        """Return what is known and past `E`. Drivers of one name share what is known, since the
        present one may be a former one at any time: each knows the time in its own scopes alone."""
        due = self._pending_at(provider.name).due(now)
        return {kill.ref: kill for kill in self._its(provider, due)}

    @staticmethod
    def _its(provider: Provider, kills: Iterable[Deletion]) -> list[Deletion]:
        scopes = provider.scopes if isinstance(provider, RetiredProvider) else None
        return [kill for kill in kills if scopes is None or kill.ref.scope in scopes]

    def _guarded(
        self, name: str, provider: Provider, *, sweep: bool, dry_run: bool, orphans: bool
    ) -> Report:
        try:
            return self._reap(name, provider, sweep=sweep, dry_run=dry_run, orphans=orphans)
        except Exception as error:  # noqa: BLE001 - one provider never stops the others
            log.exception("reaping %s", name)
            return Report(unread=(f"{name}: {type(error).__name__}: {error}",), blind=(name,))

    def _reap(
        self, name: str, provider: Provider, *, sweep: bool, dry_run: bool, orphans: bool
    ) -> Report:
        context, pending = self._context, self._pending_at(provider.name)
        done: Outcomes = {}
        overdue = self._due(provider, provider.now())
        meanwhile = None if dry_run else partial(self._kill_overdue, provider, overdue, done)
        if meanwhile is not None:
            meanwhile((), {})
        # No time is told before somebody who knows it has answered; the account is asked first.
        verified = bool(provider.scopes)
        sweep_view, known = gather(
            context,
            self._membership,
            provider,
            self._open_rows,
            sweep=sweep,
            meanwhile=meanwhile,
            ask=self._ask,
        )
        if not known.down:
            pending.learn_rows(provider.scopes, known.by_id.values(), known.unread)
        swept = SweepId(id=ids.sweep_id(), begun=sweep_view.begun) if sweep else None
        broken = [f"{name}: {hole}" for hole in sweep_view.holes]
        memory: frozenset[Sighting] = frozenset()
        try:
            if sweep and not known.down:
                memory = self._ask(lambda: context.ledger.sightings.list(name))
        except Exception as error:  # noqa: BLE001 - as in `gather`
            known.fail(error)
        broken += [f"the row of {row} cannot be read" for row in sorted(known.unread)]
        if sweep:
            self._note_visible(name, sweep_view, known)
        now = provider.now()
        plan = reap_rules.decide(
            ReapInput(
                now=now,
                rows=known.by_id,
                sweep_view=sweep_view,
                sightings=memory,
                # Without rows everything would look unknown: then nothing is concluded from it.
                sweep=swept if verified and not known.down else None,
                since=now - self._watching(),
                seen=self._visible_since(name, now, known),
                early_deaths=known.early_deaths,
                release=orphans,
            )
        )
        if swept is not None:
            self._look_again(name, plan, sweep_view)
            pending.learn(plan, sweep_view)
        # What could not be read is known from before: it was killed, and is to be told.
        condemned = {kill.ref for kill in plan.kills}
        others = [kill for ref, kill in overdue.items() if ref not in condemned]
        plan = replace(plan, kills=(*plan.kills, *others))
        dying = [row for row in known.by_id.values() if self._ours_to_delete(row)]
        lines = lines_of(provider.name, now, plan, known.by_id, dying)
        if not dry_run:
            try:
                self._apply(provider, plan, known, done, seen=sweep)
                if swept is not None and verified and not known.down:
                    context.ledger.sightings.record(name, plan.sightings)
                    with context.guard("images"):
                        newborn = context.limits.limits.newborn
                        image_kills.settle(context.ledger, provider, newborn)
            except LedgerError as error:  # what was killed before is told all the same
                known.fail(error)
            self._end_images(provider, plan, done)
            lines = [(of, replace(line, result=done.get(of, NOTHING))) for of, line in lines]
        if known.down:
            broken.append(f"the ledger is out of reach: {known.down}")
        machines = (scope for scope, kind in sweep_view.whole if kind is Kind.INSTANCE)
        return Report(
            lines=tuple(line for _, line in lines),
            alarms=plan.alarms,
            unread=tuple(broken),
            swept=tuple(sorted(machines)),
            blind=(name,) if _is_blind(sweep_view, done, sweep=sweep) else (),
        )

    def _end_images(self, provider: Provider, plan: ReapPlan, done: Outcomes) -> None:
        """Delete what builds of images left. `done` has and takes what became of each."""
        left = [one for one in plan.kills if one.ref not in done]
        done |= image_kills.end(self._context.ledger, provider, left)
        self._pending_at(provider.name).answered(done)

    # --- applying ---

    def _apply(
        self, provider: Provider, plan: ReapPlan, known: LedgerView, done: Outcomes, *, seen: bool
    ) -> None:
        """`done` has and takes what became of each. Kills past `E` come first: nothing may delay
        them. `seen`: what is killed was just listed, so that another look would tell nothing."""
        expired = (k for k in plan.kills if k.reason is Death.EXPIRED and k.ref not in done)
        late = [k for k in expired if not image_kills.is_image(k)]
        done |= kill(provider, late)
        self._pending_at(provider.name).answered(done)
        rows = dict(known.by_id)
        for mark in plan.marks:
            with self._context.guard("mark", rows[mark.instance].build):
                self._mark(rows, mark.instance, mark.reason, known)
        others = [
            k
            for k in plan.kills
            if k.reason is not Death.EXPIRED and still_condemned(self._context, k)
        ]
        done |= kill(provider, others)
        dying = [row for row in rows.values() if self._ours_to_delete(row)]
        if seen:
            dying = [row for row in dying if row.ref is None or row.ref not in done]
        done |= self._send_deletes(provider, dying, done)
        for mark in plan.marks:  # of those nobody could see, or whose turn is not now
            if (
                rows[mark.instance].state is InstanceState.DELETING
                and done.get(mark.instance, NOTHING) == NOTHING
            ):
                done[mark.instance] = MARKED
        for close in plan.closes:
            with self._context.guard("close"):
                now = provider.now()
                closed = self._context.ledger.instances.close(
                    close.instance, epoch=close.epoch, death=close.reason, now=now
                )
                done[close.instance] = CLOSED if closed else NOTHING

    def _mark(self, rows: dict[str, Instance], name: str, death: Death, known: LedgerView) -> None:
        context, row = self._context, rows[name]
        build = known.builds.get(row.build or "")
        if death is Death.DONE and was_extended(context, build, row):
            return
        doomed = context.ledger.instances.mark_deleting(
            name, seen_epoch=row.epoch, death=death, now=context.now(row)
        )
        if doomed is None:
            return
        rows[name] = doomed
        if build is not None and build.instance == name and death in _FINAL and not build.finished:
            self._completion.finish(replace(build, epoch=doomed.epoch), end_of(build, death))

    def _kill_overdue(
        self,
        provider: Provider,
        overdue: dict[Ref, Deletion],
        done: Outcomes,
        resources: Iterable[Resource],
        rows: Mapping[str, Instance],
    ) -> None:
        """Kill what is past `E`, of what was known and of the VMs on this page: neither waits for
        the rest of a listing. `overdue` takes what it was, `done` what became of each. Images go
        when all of the pass is done."""
        limits, mine, now = (
            self._context.limits.limits,
            self._context.ledger.installation,
            provider.now(),
        )
        pending = self._pending_at(provider.name)
        pending.note(
            reap_rules.soon(now, resource, rows.get(resource.instance or ""), limits, mine)
            for resource in resources
            if resource.ref.kind is Kind.INSTANCE
        )
        kills = {ref: one for ref, one in self._due(provider, now).items() if ref not in done}
        overdue |= kills
        done |= kill(provider, [one for one in kills.values() if not image_kills.is_image(one)])

    def _ours_to_delete(self, row: Instance) -> bool:
        """Return True if this reaper deletes it. Past `E` whoever owns it, inside `E` when nobody
        does, or its owner lets a turn pass: a process that is stopped is not gone."""
        if row.state is not InstanceState.DELETING or self._context.provider_of(row) is None:
            return False
        now = self._context.now(row)
        wait = 0.0 if self._membership.member_gone(row.owner) else DELETE_RETRY
        return now > row.end or now >= row.delete_at + wait

    def _send_deletes(self, provider: Provider, rows: list[Instance], done: Outcomes) -> Outcomes:
        """Ask for the death of dying rows; close those that are seen dead. A look that fails, or
        does not show a VM, saves nobody whose reference is known."""
        seen: dict[str, Ref] = {row.id: row.ref for row in rows if row.ref is not None}
        closed: Outcomes = {}
        with self._context.guard(f"look at {provider.name}"):
            keys: dict[Key, Instance] = {row.key: row for row in rows}
            sights = provider.look(list(keys)) if keys else {}
            for key, reachability in sights.items():
                row = keys[key]
                seen[row.id] = reachability.ref
                if reachability.power is Power.DEAD and self._close_dead(provider, row):
                    closed[row.id] = CLOSED
                    del seen[row.id]
        asked = [
            Deletion(
                ref=seen[row.id],
                reason=row.death or Death.DONE,
                instance=row.id,
                force=row.deletes >= FORCE_AFTER,
                expires_at=row.end,
            )
            for row in rows
            if row.id in seen and seen[row.id] not in done
        ]
        answers = kill(provider, asked)
        for one in asked:
            with self._context.guard("note"):
                again = provider.now() + DELETE_RETRY
                self._context.ledger.instances.tried(one.instance or "", again)
        asked_of: Outcomes = {k.instance or "": answers.get(k.ref, NOTHING) for k in asked}
        return {**closed, **asked_of, **answers}

    def _close_dead(self, provider: Provider, row: Instance) -> bool:
        return self._context.ledger.instances.close(
            row.id, epoch=row.epoch, death=row.death or Death.DONE, now=provider.now()
        )


def _is_blind(sweep_view: SweepView, done: Outcomes, *, sweep: bool) -> bool:
    """Return True if the provider showed nothing, or refused every delete: another node may have
    credentials, a clock, a network with which it would do either."""
    fates = [outcome.fate for outcome in done.values() if outcome.fate in _ANSWERS]
    refused = bool(fates) and all(fate is LineFate.FAILED for fate in fates)
    listed = any(kind is Kind.INSTANCE for _, kind in sweep_view.whole)
    return refused or (sweep and bool(sweep_view.holes) and not listed)
