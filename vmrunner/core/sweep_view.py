"""A sweep, taken in page by page: what no rule can name is let go at once. Pure.

So a listing of any length is never held. What stays is a name for each thing that is there, and
whole only the few of ours that expire before long, or whose row says anything but "as it should
be".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from vmrunner.core.row_index import RowIndex
from vmrunner.model import (
    MORTAL,
    SERVING,
    Instance,
    InstanceState,
    Kind,
    Limits,
    Page,
    Ref,
    Resource,
    Scope,
)

#: What expires within so many seconds is told with a sweep, to be killed without another one.
CLOCK_SKEW: Final = 3600.0

#: Seconds for which a definition is kept that nobody uses.
UNUSED: Final = 7 * 86400.0


def ours(resource: Resource, installation: str) -> bool:
    """True if a resource is, by tag and role, this very installation's, made for a build, a pool
    or an image."""
    mine = bool(installation) and resource.tag("installation") == installation
    return mine and resource.role in MORTAL


def of_this_ledger(resource: Resource, installation: str, generation: str) -> bool:
    """Made for a build or a pool by this very database, and alive: it should have a row."""
    return (
        ours(resource, installation)
        and resource.role in SERVING
        and resource.ref.kind is not Kind.DEFINITION
        and resource.alive
        and resource.tag("generation") == generation
    )


def duplicate(resource: Resource, row: Instance) -> bool:
    """A VM that carries a row's id, and is not the VM of that row."""
    is_vm = resource.ref.kind is Kind.INSTANCE
    return is_vm and row.ref is not None and row.ref != resource.ref


def expiry(
    resource: Resource, row: Instance | None, limits: Limits, seen: float | None
) -> float | None:
    """The time at which a resource of ours must be dead: the earlier of its tag's and its row's.

    Only where neither can be read its age counts, against the `max_ttl` of its birth where a tag
    tells it: a limit that is lowered later shortens no promise. `seen` is when it was first seen,
    for a resource without a time of birth. A schedule is what ends a VM past its deadline: its own
    tag alone counts. None: unknown, or a definition, which ends once nobody uses it.
    """
    if resource.ref.kind is Kind.DEFINITION:
        return None
    tagged = resource.expires_at
    if row is None:
        if tagged is not None:
            return tagged
        created = resource.created_at if resource.created_at is not None else seen
        limit = resource.max_ttl if resource.max_ttl is not None else limits.max_ttl
        return None if created is None else created + limit
    if tagged is None:
        return row.end
    return tagged if resource.ref.kind is Kind.SCHEDULE else min(tagged, row.end)


@dataclass(slots=True)
class SweepView:
    """One sweep, as far as it came. `resources`: those of ours, alive, that a rule may name."""

    limits: Limits
    installation: str
    generation: str
    alive: set[Ref] = field(default_factory=set)
    dead: set[Ref] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)  # instance ids on VMs of ours, where it matters
    errors: list[tuple[Scope, Kind, str]] = field(default_factory=list)
    stopped: str = ""  # why it ended before its end
    begun: float = math.inf  # on the cloud's clock, before anything was shown
    jumped: bool = False  # the cloud's clock turned out to be another meanwhile
    rowed: Collection[str] = ()  # instance ids with a row that says nothing: it cannot be read
    _earliest: float = math.inf  # the time at which something was shown, on the cloud's clock
    _kept: dict[Ref, Resource] = field(default_factory=dict)
    _ended: set[tuple[Scope, Kind]] = field(default_factory=set)

    def take(self, page: Page, rows: Mapping[str, Instance], now: float) -> set[str]:
        """Take in one page, with at least the rows of what it shows, by id. Returns the instance
        ids of what is kept whole: their rows are needed to conclude."""
        kept, index = set(), RowIndex(rows.values())
        self._earliest = min(self._earliest, now)
        # What was let go by another time may expire before the next sweep.
        self.jumped = now - self._earliest > CLOCK_SKEW / 2
        for resource in page.resources:
            try:
                row = index.of(resource)
                if self._take(resource, row, now, odd=index.differs(resource) is not None):
                    kept.add(row.id if row else resource.instance or "")
            except Exception as error:  # noqa: BLE001 - one that makes no sense hides no other
                self.fail(page, f"{resource.ref.id}: {type(error).__name__}: {error}")
        if page.error is not None:
            self.fail(page, page.error)
        elif not page.more:
            self._ended.add((page.scope, page.kind))
        return kept

    def clear(self) -> None:
        """Forget what was taken in."""
        self.alive, self.dead, self.shown, self.errors, self.stopped = set(), set(), set(), [], ""
        self._kept, self._ended, self._earliest, self.jumped = {}, set(), math.inf, False

    def fail(self, page: Page, why: str) -> None:
        """A part of it could not be read."""
        self.errors.append((page.scope, page.kind, why))

    def _take(self, resource: Resource, row: Instance | None, now: float, *, odd: bool) -> bool:
        """Take a resource in; true if it is kept whole. `odd`: it is to be told of."""
        ref = resource.ref
        alive = resource.alive
        (self.alive if alive else self.dead).add(ref)
        (self.dead if alive else self.alive).discard(ref)
        self._kept.pop(ref, None)
        if not ours(resource, self.installation):
            return False
        if ref.kind is Kind.INSTANCE and resource.instance and not (row and row.ref == ref):
            self.shown.add(resource.instance)
        keep = alive and (odd or not self._settled(resource, row, now))
        if keep:
            self._kept[ref] = resource
        return keep

    @property
    def resources(self) -> list[Resource]:
        """Return the resources in an order that does not depend on the listing's."""
        return sorted(self._kept.values(), key=lambda r: r.ref)

    @property
    def holes(self) -> list[str]:
        """Messages about the parts that could not be read."""
        parts = [f"{scope} {kind.value}: {error}" for scope, kind, error in self.errors]
        return [*parts, self.stopped] if self.stopped else parts

    def unread(self, scope: Scope, kind: Kind) -> bool:
        """True if it could be read in part at most."""
        return bool(self.stopped) or any((s, k) == (scope, kind) for s, k, _ in self.errors)

    @property
    def whole(self) -> frozenset[tuple[Scope, Kind]]:
        """The parts that were read to their end without an error: only there absence says
        something."""
        failed = {(scope, kind) for scope, kind, _ in self.errors}
        return frozenset() if self.stopped else frozenset(self._ended - failed)

    def _settled(self, resource: Resource, row: Instance | None, now: float) -> bool:
        """True if the resource is as it should be, for longer than until the next sweeps."""
        if resource.ref.kind is Kind.DEFINITION:
            return resource.created_at is None or now <= resource.created_at + UNUSED
        if row is None:
            unknown = of_this_ledger(resource, self.installation, self.generation)
            if unknown or resource.created_at is None:
                return False
        elif row.state is InstanceState.GONE or duplicate(resource, row):
            return False
        expires = expiry(resource, row, self.limits, None)
        return expires is not None and expires >= now + CLOCK_SKEW
