"""One pass over one provider: list the cloud, read the ledger, decide, apply.

Past its deadline a VM is killed without the ledger, so a sweep goes on without one. Before it the
row is compared once more before each effect, since what the pass read may be old. A page, row or
resource that fails stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from vmrunner.core import reap_rules
from vmrunner.core.lifecycle import CANCEL_GRACE, SweepId, end_of, sandbox_over
from vmrunner.core.reachability import Reachability
from vmrunner.core.reap_plan import Deletion, ReapPlan, Sighting
from vmrunner.core.reap_rules import ReapInput
from vmrunner.core.row_index import RowIndex
from vmrunner.core.sweep_view import UNUSED, SweepView
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import WorkContext
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.ledger.open_rows import OpenRowsReader
from vmrunner.lib import ids
from vmrunner.model import (
    BuildRecord,
    Death,
    Instance,
    InstanceState,
    Key,
    Kind,
    Power,
    Ref,
    Resource,
    Scope,
)
from vmrunner.providers import Provider
from vmrunner.providers.deletion import DELETE_RETRY, FORCE_AFTER
from vmrunner.providers.retired_providers import RetiredProvider
from vmrunner.reaper import image_kills
from vmrunner.reaper.gather import LedgerView, gather
from vmrunner.reaper.kills import kill
from vmrunner.reaper.ledger_calls import AsksLedger
from vmrunner.reaper.pending_kills import PendingKills
from vmrunner.reaper.report import (
    CLOSED,
    MARKED,
    NOTHING,
    LineFate,
    Outcomes,
    Report,
    ReportLine,
    lines_of,
)

#: The ends that a reaper which marks the VM may write at once: no retry can follow them. DONE: its
#: build's time was over.
_FINAL: Final = (Death.EXPIRED, Death.CANCELLED, Death.ABANDONED, Death.DONE)

_ANSWERS: Final = (LineFate.ACCEPTED, LineFate.MISSING, LineFate.FAILED)

HOLE: Final = 30.0  # seconds until a hole is looked at again, doubled each time
#: After so many sweeps in a row that did not list a scope it counts as silent without a look.
PRESUMED_SILENT: Final = 2

_NO_ROWS: Final[Mapping[str, Instance]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SweepRetry:
    """The time, monotonic, at which a provider is swept before its turn; `tries`: the number of
    sweeps in a row with a hole. `unlisted`: scopes whose VMs the last one did not list; `silent`:
    those of them that answer nothing else either, as far as is known."""

    when: float
    tries: int
    unlisted: frozenset[Scope] = frozenset()
    silent: frozenset[Scope] = frozenset()


@dataclass(slots=True)
class ProviderMemory:
    """The memory of one provider between passes. Drivers of one name share `pending`, since the
    present one may be a former one at any time. `retry` None: no sweep before its turn."""

    pending: PendingKills
    reachability: Reachability = field(default_factory=Reachability)  # of the scopes of open rows
    retry: SweepRetry | None = None


@dataclass(frozen=True, slots=True)
class ReaperParts:
    """The parts of a reaper that each of its passes works with. `watching` returns for how long, in
    seconds, this process has watched without a break; `ask` puts a question to the ledger."""

    context: WorkContext
    membership: Membership
    watching: Callable[[], float]
    ask: AsksLedger
    completion: BuildCompletion
    open_rows: OpenRowsReader


class ReapPass:
    """One pass over one provider. It owns `outcomes`, by reference or instance id, and `overdue`,
    the kills that it began before anything was decided."""

    def __init__(
        self,
        parts: ReaperParts,
        memory: ProviderMemory,
        name: str,
        provider: Provider,
        *,
        sweep: bool,
        dry_run: bool,
        orphans: bool,
    ) -> None:
        self._parts, self._context, self._memory = parts, parts.context, memory
        self._name, self._provider = name, provider
        self._sweep, self._dry_run, self._orphans = sweep, dry_run, orphans
        self._account_known = False
        self._swept: frozenset[Scope] = frozenset()  # the scopes that it sweeps and remembers
        self.outcomes: Outcomes = {}
        self.overdue: dict[Ref, Deletion] = {}

    def run(self) -> Report:
        """Run the pass. What is known to be past its deadline dies first: no listing, page or
        ledger may delay that (promise 1)."""
        self._kill_overdue()
        sweep_view, ledger_view = self._gather()
        plan = self._decide(sweep_view, ledger_view)
        lines = self._lines(plan, ledger_view)
        if not self._dry_run:
            self._apply(plan, ledger_view)
        return self._report(plan, lines, sweep_view, ledger_view)

    # --- before anything is decided ---

    def _kill_overdue(
        self, resources: Iterable[Resource] = (), rows: Mapping[str, Instance] = _NO_ROWS
    ) -> None:
        """Kill what is past its deadline, of what was known and of the VMs on this page: neither
        waits for the rest of a listing. Images are deleted last, by `_end_images`."""
        limits, installation = self._context.limits.limits, self._context.ledger.installation
        now, pending = self._provider.now(), self._memory.pending
        index = RowIndex(rows.values())
        pending.note(
            reap_rules.soon(now, resource, index.of(resource), limits, installation)
            for resource in resources
            if resource.ref.kind is Kind.INSTANCE
        )
        due = [k for k in within(self._provider, pending.due(now)) if k.ref not in self.outcomes]
        self.overdue |= {kill.ref: kill for kill in due}
        if not self._dry_run:
            self._kill(k for k in due if not image_kills.is_image(k))

    def _gather(self) -> tuple[SweepView, LedgerView]:
        """The cloud and the ledger. No time counts before the account was asked who it is."""
        self._account_known = bool(self._provider.scopes)
        sweep_view, ledger_view = gather(
            self._context,
            self._parts.membership,
            self._provider,
            self._parts.open_rows,
            sweep=self._sweep,
            on_page=None if self._dry_run else self._kill_overdue,
            ask=self._parts.ask,
        )
        scopes = self._provider.scopes
        self._swept = frozenset(scopes)
        if not ledger_view.down:
            rows = ledger_view.by_id.values()
            self._memory.pending.learn_rows(scopes, rows, ledger_view.unread)
        elif not self._dry_run:
            self._kill_without_ledger()
        return sweep_view, ledger_view

    def _kill_without_ledger(self) -> None:
        """Kill what is past its deadline by the rows that were read last. A row without a
        reference has its VM looked for: the create may have arrived since the last sweep."""
        provider, pending = self._provider, self._memory.pending
        now = provider.now()
        late = within(provider, pending.rows_due(now))
        with self._context.guard(f"look at {provider.name}"):
            ends = {k: e for k, e in pending.unborn(now).items() if k.scope in provider.scopes}
            observations = provider.look(list(ends)) if ends else {}
            late += [
                Deletion(
                    ref=seen.ref, reason=Death.EXPIRED, instance=key.instance, expires_at=ends[key]
                )
                for key, seen in observations.items()
                if seen.power is not Power.DEAD
            ]
        late = [kill for kill in late if kill.ref not in self.outcomes]
        self.overdue |= {kill.ref: kill for kill in late}
        self._kill(late)

    # --- the decision ---

    def _decide(self, sweep_view: SweepView, ledger_view: LedgerView) -> ReapPlan:
        """The plan by the rules, and what was overdue: of that a sweep may have shown nothing, and
        it is reported all the same. Remembers what the next pass needs."""
        sightings, memory = self._sightings(ledger_view), self._memory
        scopes = {row.scope for row in ledger_view.by_id.values()}
        if self._sweep:
            self._note_reachable(scopes, sweep_view)
        swept = SweepId(id=ids.sweep_id(), begun=sweep_view.begun)
        now = self._provider.now()
        plan = reap_rules.decide(
            ReapInput(
                now=now,
                rows=ledger_view.by_id,
                sweep_view=sweep_view,
                sightings=sightings,
                sweep=swept if self._may_conclude(ledger_view) else None,
                since=now - self._parts.watching(),
                seen=memory.reachability.since(scopes, self._context.monotonic(), now),
                early_deaths=ledger_view.early_deaths,
                release=self._orphans,
                unread=bool(ledger_view.unread),
                used=ledger_view.used,
            )
        )
        if self._sweep:
            memory.retry = self._retry(plan, sweep_view)
            memory.pending.learn(plan, sweep_view)
        condemned = {kill.ref for kill in plan.kills}
        others = [kill for ref, kill in self.overdue.items() if ref not in condemned]
        return replace(plan, kills=(*plan.kills, *others))

    def _may_conclude(self, ledger_view: LedgerView) -> bool:
        """True if absence means something. Without rows everything would look unknown."""
        return self._sweep and self._account_known and not ledger_view.down

    def _sightings(self, ledger_view: LedgerView) -> frozenset[Sighting]:
        """The memory of the sweeps before."""
        memory, name = self._context.ledger.sightings, self._provider.name
        try:
            if self._sweep and not ledger_view.down:
                return self._parts.ask(lambda: memory.list(name, self._swept_names))
        except Exception as error:  # noqa: BLE001 - as in `gather`
            ledger_view.fail(error)
        return frozenset()

    @property
    def _swept_names(self) -> frozenset[str]:
        return frozenset(map(str, self._swept))

    def _note_reachable(self, scopes: Iterable[Scope], sweep_view: SweepView) -> None:
        for scope in scopes:
            if (scope, Kind.INSTANCE) in sweep_view.whole:
                self._memory.reachability.record(scope, self._context.monotonic())
            else:
                self._memory.reachability.lost(scope)

    def _retry(self, plan: ReapPlan, sweep_view: SweepView) -> SweepRetry | None:
        """The next sweep before it is time. For what goes after its parent: at once. A hole may be
        the moment's: at once, and then ever more rarely."""
        now, former, tries = self._context.monotonic(), self._memory.retry, 0
        unlisted = silent = frozenset[Scope]()
        if sweep_view.holes:
            tries = former.tries + 1 if former else 1
            whole = sweep_view.whole
            unlisted = frozenset(s for s in self._swept if (s, Kind.INSTANCE) not in whole)
            # What answers and yet is listed never, as by a right that is missing, is no news.
            silent = unlisted & former.silent if former and tries > PRESUMED_SILENT else unlisted
        if not plan.again and not tries:
            return None
        wait = 0.0 if plan.again or tries == 1 else HOLE * 2 ** min(tries, 10)
        return SweepRetry(now + wait, tries, unlisted, silent)

    # --- its effects ---

    def _apply(self, plan: ReapPlan, ledger_view: LedgerView) -> None:
        """Do what was decided. Where the ledger breaks off, what was killed before counts."""
        ledger = self._context.ledger
        try:
            self._kill_expired(plan)
            rows = dict(ledger_view.by_id)
            self._mark(plan, rows, ledger_view.builds)
            self._kill_condemned(plan)
            self._send_deletes(self._dying(rows))
            self._note_marked(plan, rows)
            self._close(plan)
            if self._may_conclude(ledger_view):
                ledger.sightings.record(self._provider.name, self._swept_names, plan.sightings)
                with self._context.guard("images"):
                    newborn = self._context.limits.limits.newborn
                    image_kills.settle(ledger, self._provider, newborn)
        except LedgerError as error:
            ledger_view.fail(error)
            self._kill_without_ledger()
        self._end_images(plan)

    def _kill(self, kills: Iterable[Deletion]) -> None:
        self.outcomes |= kill(self._provider, kills)

    def _kill_expired(self, plan: ReapPlan) -> None:
        """Kill what is past its deadline before all else: nothing may delay that."""
        expired = (k for k in plan.kills if k.reason is Death.EXPIRED)
        late = [k for k in expired if k.ref not in self.outcomes]
        self._kill(k for k in late if not image_kills.is_image(k))
        self._memory.pending.answered(self.outcomes)

    def _mark(
        self, plan: ReapPlan, rows: dict[str, Instance], builds: Mapping[str, BuildRecord]
    ) -> None:
        """Mark the rows that must die, which `rows` then has as they are marked. Their builds end
        where no retry can follow."""
        context = self._context
        for mark in plan.marks:
            row, death = rows[mark.instance], mark.reason
            build = builds.get(row.build or "")
            with context.guard("mark", row.build):
                if death is Death.DONE and was_extended(context, build, row):
                    continue
                dying = context.ledger.instances.mark_deleting(
                    row.id, seen_epoch=row.epoch, death=death, now=context.now(row)
                )
                if dying is None:
                    continue
                rows[row.id] = dying
                its_last = build is not None and build.instance == row.id and not build.finished
                if build is not None and its_last and death in _FINAL:
                    ending = replace(build, epoch=dying.epoch)
                    self._parts.completion.finish(ending, end_of(build, death))

    def _kill_condemned(self, plan: ReapPlan) -> None:
        """Kill what must die before its deadline, each compared with the ledger once more."""
        self._kill(
            k
            for k in plan.kills
            if k.reason is not Death.EXPIRED and still_condemned(self._context, self._provider, k)
        )

    def _dying(self, rows: Mapping[str, Instance]) -> list[Instance]:
        """The dying rows whose VMs are to be asked to die now. Of what was just listed and killed
        another look would show nothing."""
        dying = [row for row in rows.values() if self._is_ours_to_delete(row)]
        if not self._sweep:
            return dying
        return [row for row in dying if row.ref is None or row.ref not in self.outcomes]

    def _is_ours_to_delete(self, row: Instance) -> bool:
        """True if this reaper deletes it: past its deadline whoever its owner is; before that when
        the owner is gone, or let a turn pass (a process that is stopped is not gone)."""
        if row.state is not InstanceState.DELETING or self._context.provider_of(row) is None:
            return False
        now = self._context.now(row)
        wait = 0.0 if self._parts.membership.member_gone(row.owner) else DELETE_RETRY
        return now > row.end or now >= row.delete_at + wait

    def _send_deletes(self, rows: list[Instance]) -> None:
        """Ask for the death of dying rows; close those that are seen dead. A look that fails, or
        does not show a VM, spares none whose reference is known."""
        provider, instances = self._provider, self._context.ledger.instances
        refs: dict[str, Ref] = {row.id: row.ref for row in rows if row.ref is not None}
        with self._context.guard(f"look at {provider.name}"):
            keys: dict[Key, Instance] = {row.key: row for row in rows}
            observations = provider.look(list(keys)) if keys else {}
            for key, seen in observations.items():
                row = keys[key]
                refs[row.id] = seen.ref
                if seen.power is Power.DEAD and close_dead(self._context, provider, row):
                    self.outcomes[row.id] = CLOSED
                    del refs[row.id]
        deletions = [
            Deletion(
                ref=refs[row.id],
                reason=row.death or Death.DONE,
                instance=row.id,
                force=row.deletes >= FORCE_AFTER,
                expires_at=row.end,
            )
            for row in rows
            if row.id in refs and refs[row.id] not in self.outcomes
        ]
        answers = kill(provider, deletions)
        self.outcomes |= {k.instance or "": answers.get(k.ref, NOTHING) for k in deletions}
        self.outcomes |= answers
        for deletion in deletions:
            with self._context.guard("note"):
                again = provider.now() + DELETE_RETRY
                instances.tried(deletion.instance or "", again)

    def _note_marked(self, plan: ReapPlan, rows: Mapping[str, Instance]) -> None:
        """Note the rows that were marked alone: out of sight, or not their turn."""
        for mark in plan.marks:
            dying = rows[mark.instance].state is InstanceState.DELETING
            if dying and self.outcomes.get(mark.instance, NOTHING) == NOTHING:
                self.outcomes[mark.instance] = MARKED

    def _close(self, plan: ReapPlan) -> None:
        for close in plan.closes:
            with self._context.guard("close"):
                closed = self._context.ledger.instances.close(
                    close.instance, epoch=close.epoch, death=close.reason, now=self._provider.now()
                )
                self.outcomes[close.instance] = CLOSED if closed else NOTHING

    def _end_images(self, plan: ReapPlan) -> None:
        """Delete what builds of images left."""
        rest = [kill for kill in plan.kills if kill.ref not in self.outcomes]
        self.outcomes |= image_kills.end(self._context.ledger, self._provider, rest)
        self._memory.pending.answered(self.outcomes)

    # --- its report ---

    def _lines(self, plan: ReapPlan, ledger_view: LedgerView) -> list[tuple[Ref | str, ReportLine]]:
        """The lines of the report, as things are before the plan is applied."""
        rows = ledger_view.by_id
        dying = [row for row in rows.values() if self._is_ours_to_delete(row)]
        return lines_of(self._provider.name, self._provider.now(), plan, rows, dying)

    def _report(
        self,
        plan: ReapPlan,
        lines: list[tuple[Ref | str, ReportLine]],
        sweep_view: SweepView,
        ledger_view: LedgerView,
    ) -> Report:
        unread = [f"{self._name}: {hole}" for hole in sweep_view.holes]
        unread += [f"the row of {row} cannot be read" for row in sorted(ledger_view.unread)]
        if ledger_view.down:
            unread.append(f"the ledger is out of reach: {ledger_view.down}")
        return Report(
            lines=tuple(replace(line, result=self.outcomes.get(of, NOTHING)) for of, line in lines),
            alarms=plan.alarms,
            unread=tuple(unread),
            swept=tuple(sorted(s for s, kind in sweep_view.whole if kind is Kind.INSTANCE)),
            blind=(self._name,) if self._is_blind(sweep_view) else (),
        )

    def _is_blind(self, sweep_view: SweepView) -> bool:
        """True if the provider showed nothing, or refused every delete: another node may have
        credentials, a clock, a network with which it would do either."""
        fates = [o.fate for o in self.outcomes.values() if o.fate in _ANSWERS]
        refused = bool(fates) and all(fate is LineFate.FAILED for fate in fates)
        listed = any(kind is Kind.INSTANCE for _, kind in sweep_view.whole)
        return refused or (self._sweep and bool(sweep_view.holes) and not listed)


def within(provider: Provider, kills: Iterable[Deletion]) -> list[Deletion]:
    """The deletions that this driver may do: a former one knows the time in its own scopes
    alone."""
    scopes = provider.scopes if isinstance(provider, RetiredProvider) else None
    return [kill for kill in kills if scopes is None or kill.ref.scope in scopes]


def close_dead(context: WorkContext, provider: Provider, row: Instance) -> bool:
    """Close the row of a VM that is seen dead. False: another did."""
    return context.ledger.instances.close(
        row.id, epoch=row.epoch, death=row.death or Death.DONE, now=provider.now()
    )


def still_condemned(context: WorkContext, provider: Provider, kill: Deletion) -> bool:
    """True if the reason to kill it before its deadline still holds by the ledger as it is now."""
    instances = context.ledger.instances
    with context.guard("check"):
        rows = instances.these([kill.instance] if kill.instance else [])
        if kill.ref.kind is Kind.DEFINITION:
            return kill.ref.id not in instances.images(provider.name, provider.now() - UNUSED)
        if kill.reason is Death.ORPHAN:
            named = [kill.instance] if kill.instance else []
            return not (instances.known(named) or instances.recorded([kill.ref]))
        if kill.reason is Death.LEFTOVER:
            return bool(rows) and rows[0].state is InstanceState.GONE
        if kill.reason is Death.DUPLICATE:
            return bool(rows) and rows[0].ref not in (None, kill.ref)
    return False


def was_extended(context: WorkContext, build: BuildRecord | None, row: Instance) -> bool:
    """True if a sandbox was extended since it was read: its user may rely on that."""
    if build is None or not build.was_ready or build.finished or build.instance != row.id:
        return False
    now = context.ledger.builds.get(build.id)
    return not now.finished and not sandbox_over(now, context.now(row) - CANCEL_GRACE)
