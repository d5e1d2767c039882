"""The choice of queued builds to start, and of their places. Pure and deterministic: the order of
the input means nothing.

The tenant with the fewest running builds first: each label filter over HTTP is one, so that no
label or priority of one tenant takes what is another's. Among a tenant's, priority; among equals
the owner (label `owner`, else `team`) with the fewest running builds; among an owner's, the oldest;
one that was refused is as old as its last try. A build that cannot start now never blocks one that
can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vmrunner.core import requirements
from vmrunner.model import (
    BuildRecord,
    BuildState,
    Instance,
    InstanceState,
    Offer,
    Reason,
    Result,
    Spec,
)

#: In the place of a provider: a build waits for a place, at whichever one is left.
ANYWHERE: Final = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The number of VMs that may be at once: over all, and by provider (None: only the overall
    limit)."""

    overall: int
    each: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStart:
    """Start this build on this offer; the rest of the list is for when it is refused."""

    build: BuildRecord
    offers: tuple[Offer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedClaim:
    """Give this build a VM that waits in a pool."""

    build: BuildRecord
    instance: Instance


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """End this build without a VM."""

    build: BuildRecord
    result: Result
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulingPlan:
    """A plan: the launches, in this order, and the builds to end. `waiting` says why a build stays
    queued, `full` which of them stay because a limit leaves no place, `crowded` how many wait for
    one, by provider; `ANYWHERE`: by the overall limit.
    `reserved`: the places, by provider, that are kept for those to whom a machine was refused: one
    for each whose quota is spent, and one for all others together. `refused_specs`: the machines of
    these others, by provider."""

    starts: tuple[PlannedStart, ...] = ()
    claims: tuple[PlannedClaim, ...] = ()
    rejects: tuple[Rejection, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    crowded: Mapping[str, int] = field(default_factory=dict)
    reserved: Mapping[str, int] = field(default_factory=dict)
    refused_specs: frozenset[tuple[str, Spec]] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last answer to a build that waits: no offer of it could be had. `until`: it is not tried
    again before. `quota`: what waits in a pool takes of that, too."""

    until: float
    quota: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OffersAnswer:
    """A provider's answer about one spec: offers, best first; or why there are none.

    `refused`: it can never be had. `later`: we could not even ask. Neither: there is no room
    now, for the reason in `message`, and of the kind `scarce`.
    """

    offers: tuple[Offer, ...] = ()
    message: str = ""
    scarce: Reason = Reason.NO_CAPACITY
    refused: Reason | None = None
    later: bool = False


#: (provider, spec) → what it offers; asked only for builds that have room.
Offers = Callable[[str, Spec], OffersAnswer]


def owner(build: BuildRecord) -> tuple[str, str]:
    """The tenant of a build and the owner within it: between these, fairness counts."""
    labels = build.spec.labels
    return build.tenant, labels.get("owner") or labels.get("team") or ""


def line(
    queued: Sequence[BuildRecord], running: Iterable[tuple[BuildRecord | None, Instance]]
) -> list[BuildRecord]:
    """Return the queued builds in the order in which they start, as far as the ledger tells."""
    found: list[BuildRecord] = []
    for build in _in_turn(queued, {}, _served(running), found):
        found.append(build)  # noqa: PERF402 - whose turn is next follows from it
    return found


def _served(
    running: Iterable[tuple[BuildRecord | None, Instance]],
) -> Counter[str | tuple[str, str]]:
    """Count the builds that have a VM, by tenant and by owner."""
    gone = InstanceState.GONE
    builds = [build for build, row in running if build is not None and row.state is not gone]
    busy: Counter[str | tuple[str, str]] = Counter(build.tenant for build in builds)
    busy.update(map(owner, builds))
    return busy


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wait:
    """Leave this build in the queue. `limit`: the one that leaves no place (`ANYWHERE`: the overall
    one); None: another cause. `needs_place`: a pool's VM may make way for it. `reserves`: the next
    place at its provider is kept for it."""

    build: BuildRecord
    message: str
    limit: str | None = None
    needs_place: bool = False
    reserves: bool = False


_Decision = PlannedStart | PlannedClaim | Rejection | _Wait


def plan(
    now: float,
    queued: Sequence[BuildRecord],
    running: Sequence[tuple[BuildRecord | None, Instance]],
    offers: Offers,
    rooms: Capacity,
    *,
    draining: bool = False,
    refusals: Mapping[str, Refusal] | None = None,
    pooled: Callable[[BuildRecord], Instance | None] = lambda _: None,
) -> SchedulingPlan:
    """Decide about the queued builds. `running`: the open rows with their builds; each takes a
    place until it is seen gone. `refusals`: by build; but for quotas, they try again in one place
    of their provider, by turns, or a pool would give one up for each at each try. `pooled`: a VM
    that waits for such a build; it has its place. `now` is the clock that queued them."""
    scheduler = _Scheduler(now, running, offers, rooms, refusals or {}, pooled)
    decisions: dict[str, _Decision | None] = {
        build.id: scheduler.early(build, draining=draining) for build in queued
    }
    hopeful = [build for build in queued if decisions[build.id] is None]
    started: list[BuildRecord] = []
    # Of one alone it is the turn, whoever has how many: most often it is one, among thousands.
    busy = _served(running) if len(hopeful) > 1 else Counter[str | tuple[str, str]]()
    for build in _in_turn(hopeful, scheduler.refusals, busy, started):
        decision = decisions[build.id] = scheduler.decide(build)
        if isinstance(decision, PlannedStart | PlannedClaim):
            started.append(build)
    return scheduler.plan_of(started, decisions)


class _Places:
    """The places of VMs: how many are taken, and the limits."""

    def __init__(
        self, running: Iterable[tuple[BuildRecord | None, Instance]], rooms: Capacity
    ) -> None:
        alive = [row for _, row in running if row.state is not InstanceState.GONE]
        self._rooms = rooms
        self.taken = Counter(row.provider for row in alive)
        self.with_build = sum(row.build is not None for row in alive)

    def take(self, provider: str) -> None:
        """Count a VM that is started for a build."""
        self.taken[provider] += 1
        self.with_build += 1

    @property
    def can_make_way(self) -> bool:
        """True if some VM waits in a pool, which may give up its place."""
        return self.with_build < sum(self.taken.values())

    def full(self, name: str) -> tuple[str, str]:
        """The limit that leaves no place at a provider, and a message about it; ("", ""): none."""
        each = self._rooms.each.get(name)
        if each is not None and self.taken[name] >= each:
            return name, f"{self.taken[name]} instances of {name} are running, its limit"
        if sum(self.taken.values()) >= self._rooms.overall:
            return ANYWHERE, f"{self._rooms.overall} instances are running, the limit"
        return "", ""


class _Scheduler:
    """One round of decisions, a build at a time, by what the former ones left.

    `scarce`: builds to which a machine was refused, but not for a quota; `trying`: providers at
    which one of these is being tried again."""

    def __init__(
        self,
        now: float,
        running: Sequence[tuple[BuildRecord | None, Instance]],
        offers: Offers,
        rooms: Capacity,
        refusals: Mapping[str, Refusal],
        pooled: Callable[[BuildRecord], Instance | None],
    ) -> None:
        self.refusals = refusals
        self._now, self._offers, self._pooled = now, offers, pooled
        self._places = _Places(running, rooms)
        self._scarce = {name for name, refusal in refusals.items() if not refusal.quota}
        self._trying = {
            row.provider
            for build, row in running
            if build is not None
            and build.id in self._scarce
            and row.state is InstanceState.REQUESTED
        }
        self._turns = set(self._trying)  # providers at which one of the scarce had its turn

    def early(self, build: BuildRecord, *, draining: bool) -> Rejection | _Wait | None:
        """The decision about a build that cannot start now, whatever else there is; None: it
        may."""
        late = _late(build, self._now)
        if late is not None:
            return late
        refusal = self.refusals.get(build.id)
        if draining:
            message = "launching is stopped (drain)"
        elif refusal is not None and refusal.until > self._now:
            message = "waiting before the next try"
        else:
            return None
        return _Wait(build=build, message=message, reserves=self._quota_spent(build))

    def decide(self, build: BuildRecord) -> _Decision:
        """The decision about a build whose turn it is; a start takes its place."""
        waits, name = self._pooled(build), build.spec.provider
        if waits is not None:
            return PlannedClaim(build=build, instance=waits)
        limit, full = self._places.full(name)
        if full and not self._places.can_make_way:
            return _Wait(build=build, message=full, limit=limit, needs_place=True)
        answer = self._offers(name, requirements.machine(build.spec))
        quota = not answer.offers and answer.scarce is Reason.QUOTA  # what waits takes of it, too
        scarce, had_turn = build.id in self._scarce, name in self._turns
        if scarce and answer.offers:
            self._turns.add(name)
        if answer.refused is not None:
            return _reject(build, answer.refused, answer.message)
        running = self._places.with_build if full and not quota else self._places.taken[name]
        if _hopeless(build, answer, running):
            return _reject(build, answer.scarce, answer.message or f"{name} has no room")
        if full:
            wanted = (bool(answer.offers) or quota) and not (scarce and had_turn)
            return _Wait(build=build, message=full, limit=limit, needs_place=wanted)
        if not answer.offers:
            reserves = not scarce and (quota or self._quota_spent(build))
            message = answer.message or f"{name} has no room now"
            return _Wait(build=build, message=message, reserves=reserves)
        self._places.take(name)
        return PlannedStart(build=build, offers=answer.offers)

    def plan_of(
        self, started: Iterable[BuildRecord], decisions: Mapping[str, _Decision | None]
    ) -> SchedulingPlan:
        """The plan that these decisions make. `started`: in the order of their turns."""
        in_order = [decisions[build.id] for build in started]
        rejects = [d for d in decisions.values() if isinstance(d, Rejection)]
        waits = [d for d in decisions.values() if isinstance(d, _Wait)]
        scarce = [wait.build for wait in waits if wait.build.id in self._scarce]
        reserved = Counter(wait.build.spec.provider for wait in waits if wait.reserves)
        reserved.update({build.spec.provider for build in scarce} - self._trying)
        return SchedulingPlan(
            starts=tuple(d for d in in_order if isinstance(d, PlannedStart)),
            claims=tuple(d for d in in_order if isinstance(d, PlannedClaim)),
            rejects=tuple(sorted(rejects, key=lambda r: (r.build.created_at, r.build.id))),
            waiting={wait.build.id: wait.message for wait in waits},
            full=frozenset(wait.build.id for wait in waits if wait.limit is not None),
            crowded=Counter(w.limit for w in waits if w.limit is not None and w.needs_place),
            reserved=reserved,
            refused_specs=frozenset(
                (b.spec.provider, requirements.capacity(requirements.machine(b.spec)))
                for b in scarce
            ),
        )

    def _quota_spent(self, build: BuildRecord) -> bool:
        """True if the last answer to a build was that a quota is spent."""
        refusal = self.refusals.get(build.id)
        return refusal is not None and refusal.quota


def _late(build: BuildRecord, now: float) -> Rejection | None:
    """Return a rejection when a build's time in the queue is over. Its cancellation comes first."""
    limit = build.spec.queue_timeout
    if build.cancel is not None or limit is None or waited(build, now) < limit:
        return None
    text = f"no VM could be had for it within {int(limit)} s"
    return _reject(build, Reason.QUEUE_TIMEOUT, text)


def _hopeless(build: BuildRecord, answer: OffersAnswer, running: int) -> bool:
    """True if there is no room, nothing of ours could make some, and no queue timeout was given."""
    nothing = not answer.offers and not answer.later
    return nothing and running == 0 and build.spec.queue_timeout is None


def waited(build: BuildRecord, now: float) -> float:
    """Seconds in the queue, over all its stays there: a refusal does not start them anew."""
    queued = [p.seconds(now) for p in build.phases if p.state is BuildState.QUEUED]
    return sum(queued) if queued else now - build.state_since


def _reject(build: BuildRecord, reason: Reason, message: str) -> Rejection:
    return Rejection(build=build, result=Result.ERROR, reason=reason, message=message)


def _in_turn(
    builds: Sequence[BuildRecord],
    refusals: Mapping[str, Refusal],
    busy: Counter[str | tuple[str, str]],
    started: list[BuildRecord],
) -> Iterable[BuildRecord]:
    """Builds by tenant, priority, turn, age. `busy` counts by tenant and by owner. The consumer
    appends what it starts to `started`, which counts from then on."""

    def age(build: BuildRecord) -> tuple[float, str]:
        refusal = refusals.get(build.id)
        return (build.created_at if refusal is None else refusal.until), build.id

    queues: dict[tuple[int, tuple[str, str]], list[BuildRecord]] = {}
    for build in sorted(builds, key=age, reverse=True):
        queues.setdefault((-build.spec.priority, owner(build)), []).append(build)
    counted = 0
    while queues:
        for build in started[counted:]:
            busy.update((build.tenant, owner(build)))
        counted = len(started)
        key = min(
            queues,
            key=lambda k: (busy[k[1][0]], k[0], busy[k[1]], *age(queues[k][-1])),
        )
        yield queues[key].pop()
        if not queues[key]:
            del queues[key]
