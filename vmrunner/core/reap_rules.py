"""The rules of what must die, and why. Pure: `decide` reads like the list of rules of design §6.

It is asked about one provider at a time, so that one cloud's outage cannot make another's
machines vanish; `now` is that provider's clock. The caller lists the cloud first and reads the
ledger after, so that what is stale can only under-delete. Dry run is "do not apply".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vmrunner.core.lifecycle import SweepId, counts_twice
from vmrunner.core.reap_plan import CloseRow, Deletion, ReapPlan, Sighting, SightingKind
from vmrunner.core.row_index import RowIndex
from vmrunner.core.row_rules import URGENCY, marks, overlong
from vmrunner.core.sweep_view import (
    CLOCK_SKEW,
    UNUSED,
    SweepView,
    duplicate,
    expiry,
    of_this_ledger,
    ours,
)
from vmrunner.model import (
    SERVING,
    Death,
    Instance,
    InstanceState,
    Kind,
    Limits,
    Ref,
    Resource,
    Scope,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReapInput:
    """All that one decision looks at, of one provider.

    `rows`: the open ones within its scopes, and those, open or gone, of every instance id that
    `sweep_view` kept; `unread`: some open row could not be read, so that a VM whose tag names none
    may have one. `sweep` is the sweep that was listed; without one nothing is concluded from what
    is not there. `since`: when a node last began to watch without a break, `seen`: the same of
    single scopes: no silence before that counts. `early_deaths`: by instance id, from
    `lifecycle.early_death`. `release`: a person looked at the orphans and wants them dead, however
    many they are. `used`: names of definitions in the offers of rows that are open, or of the last
    `UNUSED` seconds; None: that is not known."""

    now: float
    rows: Mapping[str, Instance]
    sweep_view: SweepView
    sightings: Iterable[Sighting] = ()
    sweep: SweepId | None = None
    since: float = 0.0
    seen: Mapping[Scope, float] = field(default_factory=dict)
    early_deaths: Mapping[str, Death] = field(default_factory=dict)
    release: bool = False
    unread: bool = False
    used: Collection[str] | None = None


def decide(given: ReapInput) -> ReapPlan:
    """The plan: what must die, be closed and be remembered."""
    rules, now, rows, limits = _Rules(given), given.now, given.rows, given.sweep_view.limits
    resources, kills, odd = _judged(rules.checked_kill_of, given.sweep_view.resources)
    orphans, latch, alarms = rules.orphans([r for r in resources if r.ref not in kills])
    kills |= {k.ref: k for k in orphans}
    every, kills = len(kills), _alone(kills, resources)
    later = {k.ref: k for k in map(rules.kill_to_come, resources) if k}
    return ReapPlan(
        marks=marks(now, rows.values(), given.since, given.seen, limits, given.early_deaths),
        kills=tuple(sorted(kills.values(), key=_order)),
        closes=tuple(sorted(rules.vanished(), key=lambda c: c.instance)),
        later=tuple(k for k in _alone(later, resources).values() if k.ref not in kills),
        again=len(kills) < every,
        sightings=rules.remembered(kills.values(), resources) | latch,
        alarms=tuple(
            sorted(alarms + odd + rules.crossed(resources) + overlong(now, rows.values(), limits))
        ),
    )


def soon(
    now: float,
    resource: Resource,
    row: Instance | None,
    limits: Limits,
    installation: str,
    seen: float | None = None,
) -> Deletion | None:
    """The kill of a resource that has expired or will before long, whatever else is there."""
    if not ours(resource, installation) or not resource.alive:
        return None
    expires = expiry(resource, row, limits, seen)
    if expires is None or expires >= now + CLOCK_SKEW:
        return None
    return _kill(resource, row, Death.EXPIRED, expires)


def _kill(
    resource: Resource,
    row: Instance | None,
    reason: Death,
    expires: float | None,
    *,
    force: bool = False,
) -> Deletion:
    return Deletion(
        ref=resource.ref,
        reason=reason,
        instance=row.id if row else resource.instance,
        expires_at=expires,
        created_at=resource.created_at,
        force=force,
    )


def _judged(
    verdict: Callable[[Resource], Deletion | None], resources: Iterable[Resource]
) -> tuple[list[Resource], dict[Ref, Deletion], list[str]]:
    """Judge each by itself; what makes no sense is told, left out, and holds nothing else back."""
    sound, kills, odd = [], {}, []
    for resource in resources:
        try:
            kill = verdict(resource)
        except Exception as error:  # noqa: BLE001 - see above
            odd.append(f"{resource.ref.id} makes no sense: {type(error).__name__}: {error}")
            continue
        sound.append(resource)
        if kill is not None:
            kills[kill.ref] = kill
    return sound, kills, odd


def _alone(kills: Mapping[Ref, Deletion], resources: Iterable[Resource]) -> dict[Ref, Deletion]:
    """Return the deletions without the children of those that die: most go with their parent, and
    none can go before it. Another sweep, soon, sees what is left of them."""
    parents = {resource.ref: resource.parent for resource in resources}
    return {ref: kill for ref, kill in kills.items() if parents[ref] not in kills}


def subject(ref: Ref) -> str:
    """A resource's name in a sighting."""
    return f"{ref.scope}|{ref.kind.value}|{ref.id}"


class _Rules:
    """The rules over one input."""

    def __init__(self, given: ReapInput) -> None:
        self.now, self.rows, self.sweep_view = given.now, given.rows, given.sweep_view
        self.sweep, self.release, self.unread = given.sweep, given.release, given.unread
        self.used = given.used
        self.index = RowIndex(given.rows.values())
        self.limits = given.sweep_view.limits
        self.installation, self.generation = (
            given.sweep_view.installation,
            given.sweep_view.generation,
        )
        self.memory = {(s.what, s.subject): s for s in given.sightings}

    # --- the rules for what is there ---

    def checked_kill_of(self, resource: Resource) -> Deletion | None:
        """The verdict, once all that is asked of it later makes sense."""
        self.worth_remembering(resource)
        return self.kill_of(resource)

    def kill_of(self, resource: Resource) -> Deletion | None:
        """The deletion of a resource that must die, by the first reason that holds; None: it may
        live, or is not ours."""
        if not ours(resource, self.installation) or not resource.alive:
            return None
        if resource.ref.kind is Kind.DEFINITION:
            return _kill(resource, None, Death.LEFTOVER, None) if self.unused(resource) else None
        row = self.row_of(resource)
        expires = expiry(resource, row, self.limits, self.first_seen(resource))
        reason: Death | None = None
        if expires is not None and self.now > expires:
            reason = Death.EXPIRED
        elif resource.role not in SERVING or row is None:
            reason = None
        elif row.state is InstanceState.GONE:
            reason = Death.LEFTOVER if self.parentless(resource, row) else None
        elif duplicate(resource, row):
            reason = Death.DUPLICATE
        if reason is None:
            return None
        return _kill(resource, row, reason, expires, force=self.asked_before(resource))

    def unused(self, resource: Resource) -> bool:
        """True if a definition is old, and no row of late names it."""
        if self.sweep is None or self.unread or self.used is None or resource.created_at is None:
            return False
        return self.now > resource.created_at + UNUSED and resource.ref.id not in self.used

    def kill_to_come(self, resource: Resource) -> Deletion | None:
        """The kill to come of a resource that expires before long."""
        row, seen = self.row_of(resource), self.first_seen(resource)
        kill = soon(self.now, resource, row, self.limits, self.installation, seen)
        return kill if kill and self.now <= (kill.expires_at or 0.0) else None

    def asked_before(self, resource: Resource) -> bool:
        return (SightingKind.KILLED, subject(resource.ref)) in self.memory

    def row_of(self, resource: Resource) -> Instance | None:
        return self.index.of(resource)

    def crossed(self, resources: Iterable[Resource]) -> list[str]:
        """Messages about VMs whose tag names another row than the one that recorded them."""
        return [
            f"{resource.ref.id} is tagged {resource.instance}, and {row.id} recorded it"
            for resource in resources
            if (row := self.index.differs(resource)) is not None
        ]

    def parentless(self, resource: Resource, row: Instance) -> bool:
        """A child dies only after no parent is alive: neither what it hangs on, nor its VM."""
        if resource.ref.kind is Kind.INSTANCE:
            return True
        if row.ref in self.sweep_view.alive or resource.parent in self.sweep_view.alive:
            return False
        # No VM was seen; that says something only where the VMs were read whole.
        return (resource.ref.scope, Kind.INSTANCE) in self.sweep_view.whole

    def first_seen(self, resource: Resource) -> float | None:
        sighting = self.memory.get((SightingKind.ORPHAN, subject(resource.ref)))
        return sighting.begun if sighting else None

    # --- the rule for what has no row ---

    def unknown(self, resource: Resource) -> bool:
        """True if a resource is ours, of this very database, alive, and without a row."""
        mine = of_this_ledger(resource, self.installation, self.generation)
        if not mine or self.row_of(resource) is not None:
            return False
        if resource.instance:
            return resource.instance not in self.sweep_view.rowed
        return not self.unread

    def orphans(self, rest: Sequence[Resource]) -> tuple[list[Deletion], set[Sighting], list[str]]:
        """ORPHAN: the second complete sighting, past the newborn window, under the cap. Over the
        cap none dies, and its scope is latched until a sweep of all that is there finds none at all
        (then it was an error and is over), or a person releases them."""
        if self.sweep is None:
            return [], {s for (what, _), s in self.memory.items() if what is SightingKind.LATCH}, []
        found = [r for r in rest if self.unknown(r)]
        condemned = [r for r in found if self.seen_twice(r)]
        scopes = {r.ref.scope for r in found}
        latches = {s for (what, _), s in self.memory.items() if what is SightingKind.LATCH}
        held = {s for s in latches if s.subject in map(str, scopes) or self.hole_in(s.subject)}
        free = [r for r in condemned if str(r.ref.scope) not in {s.subject for s in held}]
        if self.release:
            held, free = set(), condemned
        elif len(free) > self.limits.orphan_cap:
            held |= {self.sighted(SightingKind.LATCH, str(r.ref.scope), r.ref.scope) for r in free}
            free = []
        kept = [r for r in found if str(r.ref.scope) in {s.subject for s in held}]
        text = (
            f"{len(kept)} resources of this installation have no row "
            f"(cap {self.limits.orphan_cap}): none is deleted before its deadline, unless by "
            "`vmrunner reap --orphans`"
        )
        kills = [
            _kill(r, None, Death.ORPHAN, r.expires_at, force=self.asked_before(r)) for r in free
        ]
        return kills, held, [text] if kept else []

    def sighted(self, what: SightingKind, about: str, scope: Scope) -> Sighting:
        assert self.sweep is not None
        return Sighting(
            what=what, subject=about, place=str(scope), sweep=self.sweep.id, begun=self.sweep.begun
        )

    def hole_in(self, scope: str) -> bool:
        """True if a part of the scope was not read, so that none was seen says nothing."""
        read = {str(place) for place, _ in self.sweep_view.whole}
        return scope not in read or scope in {str(place) for place, _, _ in self.sweep_view.errors}

    def seen_twice(self, resource: Resource) -> bool:
        first = self.memory.get((SightingKind.ORPHAN, subject(resource.ref)))
        if first is None or (resource.ref.scope, resource.ref.kind) not in self.sweep_view.whole:
            return False
        if resource.created_at is not None:
            return self.seen_again(first, resource.created_at)
        # Its birth is not told: it was born before its first sighting, which does not count then.
        assert self.sweep is not None
        wait = self.limits.newborn + self.limits.sighting_gap
        return first.sweep != self.sweep.id and self.sweep.begun > first.begun + wait

    # --- the rule for what is not there ---

    def vanished(self) -> list[CloseRow]:
        """VANISHED: a row without its resource, after two complete sightings of its own scope."""
        return [
            CloseRow(instance=row.id, epoch=row.epoch, reason=row.death or Death.VANISHED)
            for row in self.missing()
            if self.seen_again(self.memory.get((SightingKind.ABSENT, row.id)), row.created_at)
        ]

    def seen_again(self, first: Sighting | None, created: float) -> bool:
        """Return True if this sweep is the second sighting after `first`."""
        if first is None or self.sweep is None:
            return False
        then = SweepId(id=first.sweep, begun=first.begun)
        return counts_twice(then, self.sweep, created, self.limits)

    def missing(self) -> list[Instance]:
        """Open rows that this sweep looked for in full and did not see."""
        if self.sweep is None:
            return []
        # Another's VM may carry a copied id: it is no sign of ours, unless it is the recorded one.
        whole, view = self.sweep_view.whole, self.sweep_view
        return [
            row
            for row in self.rows.values()
            if row.state is not InstanceState.GONE
            and (row.scope, Kind.INSTANCE) in whole
            and row.id not in view.shown
            and row.ref not in view.alive
            and row.ref not in view.dead
        ]

    # --- what to remember ---

    def remembered(
        self, kills: Iterable[Deletion], resources: Iterable[Resource]
    ) -> frozenset[Sighting]:
        """The sightings for the next sweep. A series breaks where a complete sweep contradicts it;
        a sweep that saw only a part neither breaks nor begins one."""
        if self.sweep is None:
            return frozenset(s for s in self.memory.values() if s.what is not SightingKind.LATCH)
        orphans = [r for r in resources if self.worth_remembering(r)]
        absent = [row for row in self.missing() if self.past_newborn(row)]
        fresh = {(SightingKind.KILLED, subject(kill.ref)): kill.ref.scope for kill in kills}
        fresh |= {(SightingKind.ORPHAN, subject(r.ref)): r.ref.scope for r in orphans}
        fresh |= {(SightingKind.ABSENT, row.id): row.scope for row in absent}
        again = {self.memory.get(key) or self.sighted(*key, scope) for key, scope in fresh.items()}
        return frozenset(again) | {
            sighting
            for (what, about), sighting in self.memory.items()
            if what is not SightingKind.LATCH and self.left_open(what, about)
        }

    def past_newborn(self, row: Instance) -> bool:
        return self.sweep is not None and self.sweep.begun > row.created_at + self.limits.newborn

    def worth_remembering(self, resource: Resource) -> bool:
        """Worth remembering: no row, and old enough for a first sighting to count; or a resource
        that tells neither its deadline nor its age, whose first sighting stands for its birth."""
        if (
            self.sweep is None
            or not ours(resource, self.installation)
            or resource.ref.kind is Kind.DEFINITION
            or self.row_of(resource) is not None
        ):
            return False
        if resource.created_at is None:
            return True
        old = self.sweep.begun > resource.created_at + self.limits.newborn
        return self.unknown(resource) and old

    def left_open(self, what: SightingKind, about: str) -> bool:
        """True if this sweep did not read the part of the cloud that could confirm or refute the
        sighting."""
        if what is SightingKind.ABSENT:
            row = self.rows.get(about)
            if row is None or row.state is InstanceState.GONE:
                return False
            return (row.scope, Kind.INSTANCE) not in self.sweep_view.whole
        whole = {f"{scope}|{kind.value}|" for scope, kind in self.sweep_view.whole}
        return not any(about.startswith(part) for part in whole)


def _order(kill: Deletion) -> tuple[bool, int, Ref]:
    """Parents before children, then by priority, then by name."""
    return (kill.ref.kind is not Kind.INSTANCE, URGENCY[kill.reason], kill.ref)
