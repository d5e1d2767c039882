"""Budgets: what a VM may still cost counts as spent when it is asked for, so that no number of
launches at once overdraws one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from vmrunner.core import pricing
from vmrunner.model import Budget, BudgetAction, BudgetPeriod, BudgetState, Instance, InstanceState

_HOUR = 3600.0
_ROUNDING = 1e-9


class Period(NamedTuple):
    """A day or a month in UTC: its first moment, and the next one's."""

    start: float
    end: float


class Overdraft(NamedTuple):
    """A budget that has no money for a VM."""

    budget: Budget
    message: str


def period(kind: BudgetPeriod, at: float) -> Period:
    """Return the day or month in which that moment lies."""
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is BudgetPeriod.DAY:
        return Period(day.timestamp(), (day + timedelta(days=1)).timestamp())
    first = day.replace(day=1)
    next_month = (first + timedelta(days=32)).replace(day=1)
    return Period(first.timestamp(), next_month.timestamp())


def periods(kind: BudgetPeriod, start: float, end: float) -> Iterator[Period]:
    """Yield the days or months that such a span touches."""
    while start < end:
        found = period(kind, start)
        yield found
        start = found.end


def held(row: Instance, span: Period) -> float:
    """USD that a VM has cost in a period, and may still cost until its deadline. One that is gone
    costs no more; an unknown rate counts as nothing."""
    if row.state is InstanceState.GONE:
        return pricing.cost(row, row.gone_at or row.created_at, *span) or 0.0
    seconds = min(row.end, span.end) - max(row.created_at, span.start)
    return (row.rate.usd_hour or 0.0) * max(0.0, seconds) / _HOUR


def settled(row: Instance, kind: BudgetPeriod) -> dict[Period, float]:
    """USD that a VM that is gone has cost, by day or month."""
    end = max((part.end for part in pricing.billed(row, row.gone_at or 0.0)), default=0.0)
    return {span: held(row, span) for span in periods(kind, row.created_at, end)}


def check(
    budget: Budget, row: Instance, taken: Callable[[Period], float], seen: Mapping[str, str]
) -> Overdraft | None:
    """The overdraft of a budget that has no money for this VM until its deadline; None: it has.
    `taken`: USD that all others spent and hold in a period; `seen`: the reader's label filter."""
    if row.rate.usd_hour is None:
        if budget.action is BudgetAction.WARN:
            return None
        what = f"{row.offer.machine_type} at {row.provider}"
        why = f'the price of {what} is unknown; action = "warn" would let it in'
        return Overdraft(budget, f"budget {budget.name}: {why}")
    for span in periods(budget.period, row.created_at, row.end):
        own, others = held(row, span), taken(span)
        if own and own + others > budget.usd + _ROUNDING:
            day = datetime.fromtimestamp(span.start, UTC)
            named = f"{day:%Y-%m-%d}" if budget.period is BudgetPeriod.DAY else f"{day:%Y-%m}"
            sums = f"of ${budget.usd:.2f} for {named} ${others:.2f} are spent or held"
            if not budget.seen_whole(seen):  # what others cost is not theirs to know
                sums = f"too little is left for {named}"
            return Overdraft(
                budget,
                f"budget {budget.name}: {sums}, and this VM may cost ${own:.2f} until its "
                "deadline; a shorter ttl holds less",
            )
    return None


class Accounts:
    """Sums that are spent and held of some budgets; each VM that is let in changes them. `spent`:
    what VMs that are gone have cost, by budget and start of the period."""

    def __init__(
        self,
        budgets: Mapping[str, Budget],
        spent: Mapping[tuple[str, float], float],
        live: Mapping[str, Mapping[str, Instance]],
    ) -> None:
        self._budgets = budgets
        self._spent = spent
        self._live = {name: dict(live.get(name, {})) for name in budgets}

    def concerned(self, labels: Mapping[str, str], actor: str) -> list[str]:
        """Return the names of the budgets that pay for such a build, in order."""
        found = (name for name, budget in self._budgets.items() if budget.concerns(labels, actor))
        return sorted(found)

    def overdrafts(
        self, names: list[str], row: Instance, seen: Mapping[str, str]
    ) -> list[Overdraft]:
        """The overdrafts of the named budgets for this VM; those that refuse come first. What they
        hold for a row of its id, it replaces. `seen`: the reader's label filter."""
        found = [check(self._budgets[name], row, self._taken(name, row.id), seen) for name in names]
        overdrafts = [overdraft for overdraft in found if overdraft is not None]
        return sorted(
            overdrafts, key=lambda overdraft: overdraft.budget.action is BudgetAction.WARN
        )

    def hold(self, names: list[str], row: Instance) -> None:
        """Count this VM."""
        for name in names:
            self._live[name][row.id] = row

    def release(self, instance: str) -> None:
        """Count a VM no more that was never made."""
        for rows in self._live.values():
            rows.pop(instance, None)

    def holds(self, name: str, instance: str) -> bool:
        return instance in self._live[name]

    def states(self, at: float) -> list[BudgetState]:
        """The state of each budget now, by name."""
        return [
            BudgetState(
                budget=budget,
                start=(span := period(budget.period, at)).start,
                held=self._taken(name, "")(span),
            )
            for name, budget in sorted(self._budgets.items())
        ]

    def _taken(self, name: str, but: str) -> Callable[[Period], float]:
        rows = [row for row in self._live[name].values() if row.id != but]

        def taken(span: Period) -> float:
            return self._spent.get((name, span.start), 0.0) + sum(held(r, span) for r in rows)

        return taken
