"""What a pass of the reaper found and did, for people and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vmrunner.core import pricing
from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.model import Death, Fate, Instance, Outcome, Ref
from vmrunner.providers import registry

#: The outcome of a row whose VM was seen dead, or is not there any more.
CLOSED: Final = "closed"
#: The outcome of a row that was marked to die, and whose VM was not there to be asked.
MARKED: Final = "marked to die"


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
    cost: float = 0.0
    outcome: str = ""  # empty: nothing was done (a dry run, or somebody was faster)

    @property
    def failed(self) -> bool:
        return failed(self.outcome)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one pass found and did. `unread`: parts that could not be read or decided; `ongoing`:
    providers at which it is not over yet."""

    lines: tuple[ReportLine, ...] = ()
    alarms: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    ongoing: tuple[str, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(
            lines=self.lines + other.lines,
            alarms=self.alarms + other.alarms,
            unread=self.unread + other.unread,
            ongoing=self.ongoing + other.ongoing,
        )


def lines_of(
    name: str,
    now: float,
    plan: ReapPlan,
    rows: Mapping[str, Instance],
    dying: Iterable[Instance] = (),
) -> list[tuple[Ref | str, ReportLine]]:
    """A plan, and the rows that were dying before and are asked to die once more: each line with
    what its outcome is told of."""
    lines: list[tuple[Ref | str, ReportLine]] = [
        (kill.ref, line_of(name, now, kill, rows.get(kill.instance or ""))) for kill in plan.kills
    ]
    killed = {kill.instance for kill in plan.kills}
    rest = [(row.id, "delete", row.death or Death.DONE) for row in dying]
    rest += [(doom.instance, "delete", doom.reason) for doom in plan.dooms]
    rest += [(close.instance, "close", close.reason) for close in plan.closes]
    for instance, what, reason in rest:
        if instance not in killed or what == "close":
            lines.append((instance, _row_line(name, now, rows[instance], what, reason)))
    return lines


def line_of(
    name: str, now: float, kill: Deletion, row: Instance | None, outcome: str = ""
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
        cost=pricing.cost(row, now, registry.prices(row.scope.kind)) if row else 0.0,
        outcome=outcome,
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
        late=_late(now, row.deadline),
        cost=pricing.cost(row, now, registry.prices(row.scope.kind)),
    )


def _late(now: float, deadline: float | None) -> float | None:
    return now - deadline if deadline is not None and now > deadline else None


def failed(outcome: str) -> bool:
    """Did the provider refuse?"""
    return outcome.startswith(Fate.FAILED.value)


def told(outcome: Outcome) -> str:
    """An outcome in words."""
    return f"{outcome.fate.value}: {outcome.error}" if outcome.error else outcome.fate.value
