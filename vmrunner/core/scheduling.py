"""The choice of queued builds to start, and of their places. Pure and deterministic: the order of
the input means nothing.

The tenant with the fewest running builds first: whoever came over HTTP with a label filter is one,
so that no label or priority of theirs takes what is another's. Among a tenant's, priority; among
equals the owner (label `owner`, else `team`) with the fewest running builds; among an owner's, the
oldest; one that was refused is as old as its last try. A build that cannot start now never blocks
one that can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vmrunner.core import shapes
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
    `refused`: the places, by provider, that are kept for those to whom a machine was refused: one
    for each whose quota is spent, and one for all others together. `dry`: the machines of these."""

    starts: tuple[PlannedStart, ...] = ()
    claims: tuple[PlannedClaim, ...] = ()
    rejects: tuple[Rejection, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    crowded: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    dry: frozenset[tuple[str, Spec]] = frozenset()


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
    """Return for whom a build runs, as far as fairness goes: tenant, and owner within it."""
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
    busy: Counter[str | tuple[str, str]] = Counter()
    for build, row in running:
        if build is not None and row.state is not InstanceState.GONE:
            busy.update((build.tenant, owner(build)))
    return busy


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
    taken: Counter[str] = Counter()
    busy, working = _served(running), 0
    refusals = refusals or {}
    scarce = {name for name, refusal in refusals.items() if not refusal.quota}
    trying = {  # providers at which one of these is tried again
        row.provider
        for build, row in running
        if build is not None and build.id in scarce and row.state is InstanceState.REQUESTED
    }
    for _, row in running:
        if row.state is not InstanceState.GONE:
            taken[row.provider] += 1
            working += row.build is not None

    hopeful, rejects, waiting = _sift(now, queued, refusals, draining=draining)
    spent = refusals.keys() - scarce
    starts: list[PlannedStart] = []
    claims: list[PlannedClaim] = []
    crowded: Counter[str] = Counter()
    without_place: set[str] = set()
    refused = Counter(b.spec.provider for b in queued if b.id in spent and b.id in waiting)
    tried = set(trying)
    for build in _in_turn(hopeful, refusals, busy, started := []):
        name = build.spec.provider
        waits = pooled(build)
        if waits is not None:
            claims.append(PlannedClaim(build=build, instance=waits))
            started.append(build)
            continue
        limit, full = _full(name, taken, rooms)
        if full and working == sum(taken.values()):  # nothing makes way, whatever it is
            waiting[build.id] = full
            without_place.add(build.id)
            crowded[limit] += 1
            continue
        answer = offers(name, shapes.machine(build.spec))
        quota = not answer.offers and answer.scarce is Reason.QUOTA  # what waits takes of it, too
        if answer.refused is not None:
            rejects.append(_reject(build, answer.refused, answer.message))
        elif _hopeless(build, answer, working if full and not quota else taken[name]):
            text = answer.message or f"{name} has no room"
            rejects.append(_reject(build, answer.scarce, text))
        elif full:
            waiting[build.id] = full
            without_place.add(build.id)
            waits_turn = build.id in scarce and name in tried
            crowded[limit] += (bool(answer.offers) or quota) and not waits_turn
        elif not answer.offers:
            waiting[build.id] = answer.message or f"{name} has no room now"
            refused[name] += build.id not in scarce and (quota or build.id in spent)
        else:
            starts.append(PlannedStart(build=build, offers=answer.offers))
            started.append(build)
            taken[name] += 1
            working += 1
        tried |= {name} if build.id in scarce and answer.offers else set()
    dry = [build for build in queued if build.id in scarce and build.id in waiting]
    refused.update({build.spec.provider for build in dry} - trying)
    return SchedulingPlan(
        starts=tuple(starts),
        claims=tuple(claims),
        rejects=tuple(sorted(rejects, key=lambda r: (r.build.created_at, r.build.id))),
        waiting=waiting,
        full=frozenset(without_place),
        crowded=+crowded,
        refused=+refused,
        dry=frozenset((b.spec.provider, shapes.capacity(shapes.machine(b.spec))) for b in dry),
    )


def _full(name: str, taken: Counter[str], rooms: Capacity) -> tuple[str, str]:
    """Return which limit leaves no place at a provider, and how to say so; ("", ""): none."""
    each = rooms.each.get(name)
    if each is not None and taken[name] >= each:
        return name, f"{taken[name]} instances of {name} are running, its limit"
    if sum(taken.values()) >= rooms.overall:
        return ANYWHERE, f"{rooms.overall} instances are running, the limit"
    return "", ""


def _sift(
    now: float, queued: Iterable[BuildRecord], refusals: Mapping[str, Refusal], *, draining: bool
) -> tuple[list[BuildRecord], list[Rejection], dict[str, str]]:
    """Return the builds that may start now, those whose time is over, and why the others wait."""
    hopeful: list[BuildRecord] = []
    rejects: list[Rejection] = []
    waiting: dict[str, str] = {}
    for build in queued:
        late = _late(build, now)
        if late is not None:
            rejects.append(late)
        elif draining:
            waiting[build.id] = "launching is stopped (drain)"
        elif build.id in refusals and refusals[build.id].until > now:
            waiting[build.id] = "waiting before the next try"
        else:
            hopeful.append(build)
    return hopeful, rejects, waiting


def _late(build: BuildRecord, now: float) -> Rejection | None:
    """Return a rejection when a build's time in the queue is over. A wish to cancel it comes
    first."""
    limit = build.spec.queue_timeout
    if build.cancel is not None or limit is None or waited(build, now) < limit:
        return None
    text = f"no VM could be had for it within {int(limit)} s"
    return _reject(build, Reason.QUEUE_TIMEOUT, text)


def _hopeless(build: BuildRecord, answer: OffersAnswer, running: int) -> bool:
    """True if there is no room, nothing of ours could make some, and nobody said how long to
    hope."""
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
