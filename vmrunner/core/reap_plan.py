"""The reaper's decisions and memory, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmrunner.model import Death, Ref


class SightingKind(StrEnum):
    """Subject of a sighting."""

    ORPHAN = "orphan"  # a resource that has no row
    ABSENT = "absent"  # a row that has no resource
    KILLED = "killed"  # a resource that we asked to die
    LATCH = "latch"  # the cap on orphans was passed


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """The first sweep of an unbroken series that saw the same thing; kept between sweeps."""

    what: SightingKind
    subject: str  # a resource as `subject` writes it, an instance id, or a scope
    place: str  # the scope in which it was seen; another's sweep neither confirms nor refutes it
    sweep: str
    begun: float  # when that sweep began, on the provider's clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Deletion:
    """A resource that must be deleted. Before its deadline its row is checked once more first."""

    ref: Ref
    reason: Death
    instance: str | None = None
    expires_at: float | None = None
    created_at: float | None = None
    force: bool = False  # asked before, and it is still there


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkDeleting:
    """A row that must go to `deleting`, if its epoch is still the one that was read."""

    instance: str
    seen_epoch: int
    reason: Death


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseRow:
    """A row to be closed: twice looked for in full, and not there."""

    instance: str
    epoch: int
    reason: Death


@dataclass(frozen=True, kw_only=True, slots=True)
class ReapPlan:
    """A plan: the steps in this order, and what to remember until the next sweep."""

    marks: tuple[MarkDeleting, ...] = ()
    kills: tuple[Deletion, ...] = ()  # parents before children, by priority
    closes: tuple[CloseRow, ...] = ()
    later: tuple[Deletion, ...] = ()  # not yet past their deadline, but before long
    again: bool = False  # something goes only after its parent: look soon whether it did
    sightings: frozenset[Sighting] = frozenset()
    alarms: tuple[str, ...] = ()
