"""The report of a pass, for people and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vmrunner.core import pricing
from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.model import Death, Instance, Outcome, Ref, Scope


class LineFate(StrEnum):
    """Fate of one thing in a pass."""

    NOTHING = ""  # nothing was done: a dry run, or another was faster
    ACCEPTED = "accepted"  # the provider was asked to delete it, and will
    MISSING = "missing"  # … and has no such thing
    FAILED = "failed"  # … and refused
    CLOSED = "closed"  # a row whose VM was seen dead, or is not there any more
    MARKED = "marked to die"  # a row whose VM was not there to be asked
    DEAD = "dead"  # a VM that is seen dead


@dataclass(frozen=True, slots=True)
class LineOutcome:
    """Fate of one thing, and why not; `str` is for people and scripts."""

    fate: LineFate
    error: str = ""

    @classmethod
    def of(cls, outcome: Outcome) -> LineOutcome:
        """A provider's answer."""
        return cls(LineFate(outcome.fate.value), outcome.error)

    def __str__(self) -> str:
        return f"{self.fate.value}: {self.error}" if self.error else self.fate.value


NOTHING: Final = LineOutcome(LineFate.NOTHING)
CLOSED: Final = LineOutcome(LineFate.CLOSED)
MARKED: Final = LineOutcome(LineFate.MARKED)
DEAD: Final = LineOutcome(LineFate.DEAD)

#: What became of each: of a thing by its reference, since its id alone may be that of a VM and of
#: its disk; of a row by the row's id.
Outcomes = dict[Ref | str, LineOutcome]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportLine:
    """One thing that must die, or a row that was closed. Times in seconds, cost in USD."""

    provider: str
    what: str  # delete, or close
    kind: str
    id: str  # the provider's name of it, or the row's
    reason: Death
    instance: str | None = None
    build: str | None = None
    age: float | None = None
    late: float | None = None  # past its deadline
    cost: float | None = None  # unknown
    result: LineOutcome = NOTHING

    @property
    def outcome(self) -> str:
        """The outcome in words; empty when nothing was done."""
        return str(self.result)

    @property
    def failed(self) -> bool:
        """True if the provider refused."""
        return self.result.fate is LineFate.FAILED


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The findings and effects of one pass. `unread`: parts that could not be read or decided;
    `ongoing`: providers at which it is not over yet; `swept`: where all machines were listed;
    `blind`: providers that answered nothing, or refused every delete."""

    lines: tuple[ReportLine, ...] = ()
    alarms: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    ongoing: tuple[str, ...] = ()
    swept: tuple[Scope, ...] = ()
    blind: tuple[str, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(
            lines=self.lines + other.lines,
            alarms=self.alarms + other.alarms,
            unread=self.unread + other.unread,
            ongoing=self.ongoing + other.ongoing,
            swept=self.swept + other.swept,
            blind=self.blind + other.blind,
        )


def lines_of(
    name: str,
    now: float,
    plan: ReapPlan,
    rows: Mapping[str, Instance],
    dying: Iterable[Instance] = (),
) -> list[tuple[Ref | str, ReportLine]]:
    """The lines of a plan, and of the rows that were dying before and are deleted once more: each
    with the key of its outcome."""
    lines: list[tuple[Ref | str, ReportLine]] = [
        (kill.ref, line_of(name, now, kill, rows.get(kill.instance or ""))) for kill in plan.kills
    ]
    killed = {kill.instance for kill in plan.kills}
    rest = [(row.id, "delete", row.death or Death.DONE) for row in dying]
    rest += [(mark.instance, "delete", mark.reason) for mark in plan.marks]
    rest += [(close.instance, "close", close.reason) for close in plan.closes]
    for instance, what, reason in rest:
        if instance not in killed or what == "close":
            lines.append((instance, _row_line(name, now, rows[instance], what, reason)))
    return lines


def line_of(
    name: str, now: float, kill: Deletion, row: Instance | None, result: LineOutcome = NOTHING
) -> ReportLine:
    """A kill at this provider, with what its row adds."""
    return ReportLine(
        provider=name,
        what="delete",
        kind=kill.ref.kind.value,
        id=kill.ref.id,
        reason=kill.reason,
        instance=kill.instance,
        build=row.build if row else None,
        age=None if kill.created_at is None else now - kill.created_at,
        late=_late(now, kill.expires_at),
        cost=pricing.cost(row, now) if row else None,
        result=result,
    )


def _row_line(name: str, now: float, row: Instance, what: str, reason: Death) -> ReportLine:
    """A row that dies, or that is closed."""
    return ReportLine(
        provider=name,
        what=what,
        kind="instance",
        id=row.id,
        reason=reason,
        instance=row.id,
        build=row.build,
        age=now - row.created_at,
        late=_late(now, row.end),
        cost=pricing.cost(row, now),
    )


def _late(now: float, deadline: float | None) -> float | None:
    return now - deadline if deadline is not None and now > deadline else None
