"""The state of all builds at a glance: what runs, what waits and why, what failed, what it costs.
Nothing here reads all builds: open ones, the newest, those of a day by its index, sums of days."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Final

from vmrunner.core import cost_report
from vmrunner.model import BuildChoice, BuildRecord, BuildState, Result
from vmrunner.services import audit, costs, nodes, pools

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import BudgetState, Cost
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.services.nodes import Node
    from vmrunner.services.pools import PoolStatus

HOUR: Final = 3600.0
HOURS: Final = 24  # of which ends are counted
DAYS: Final = 14  # of which costs are told
SHOWN: Final = 8  # builds of each list
_COUNTED: Final = 20_000  # builds that ended in those hours; of more the last ones
_BYTES: Final = 1 << 20  # of what the builds of a list were asked for with
FAILED: Final = (Result.FAILURE, Result.ERROR, Result.TIMEOUT)


@dataclass(slots=True)
class EndedHour:
    """Builds that ended within an hour. `waits`: seconds that each was queued."""

    start: float
    results: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    @property
    def wait(self) -> float | None:
        """Return the median of what they waited; None: none waited."""
        return median(self.waits) if self.waits else None

    @property
    def failed(self) -> int:
        return sum(self.results[result] for result in FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildHistory:
    """Builds of the last hours and costs of the last days (UTC), the oldest first. `today`: the
    cost of all since midnight."""

    hours: Sequence[EndedHour]
    days: Sequence[tuple[str, Cost | None]]
    today: Cost

    @property
    def ended(self) -> int:
        return sum(sum(hour.results.values()) for hour in self.hours)

    @property
    def failed(self) -> int:
        return sum(hour.failed for hour in self.hours)


def history(
    ledger: Ledger, providers: ProviderSet, own: Mapping[str, str], now: float
) -> BuildHistory:
    """Return the history of the builds of the principal with this label filter."""
    first = (now // HOUR - HOURS + 1) * HOUR
    hours = [EndedHour(first + n * HOUR) for n in range(HOURS)]
    for ended, result, queued in ledger.metrics.ended_since(first, own, _COUNTED):
        hour = hours[min(int((ended - first) // HOUR), HOURS - 1)]
        hour.results[result] += 1
        if queued is not None:
            hour.waits.append(queued)
    return BuildHistory(
        hours=hours,
        days=_days(ledger, providers, own, now),
        today=cost_report.total(
            costs.report(ledger, providers, since=now - cost_report.midnight(now), own=own)
        ),
    )


def _days(
    ledger: Ledger, providers: ProviderSet, own: Mapping[str, str], now: float
) -> list[tuple[str, Cost | None]]:
    first = cost_report.midnight(now) - (DAYS - 1) * cost_report.DAY
    found = costs.report(ledger, providers, by=costs.DAY, since=now - first, own=own)
    by_day = {line.key: line.cost for line in found if line.what is cost_report.CostKind.BUILDS}
    names = [
        f"{datetime.fromtimestamp(first + n * cost_report.DAY, UTC):%Y-%m-%d}" for n in range(DAYS)
    ]
    return [(name, by_day.get(name)) for name in names]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildsNow:
    """Builds that run, or failed last, the newest first; and that wait, the first in line first.
    `newest`: the id of the last that was submitted; "" if there is none."""

    running: Sequence[BuildRecord]
    waiting: Sequence[BuildRecord]
    failed: Sequence[BuildRecord]
    counts: Mapping[str, int]
    newest: str

    @property
    def version(self) -> Hashable:
        """The version of these: another one once a build has come, gone on or ended."""
        ids = tuple(row.id for row in (*self.running, *self.waiting, *self.failed))
        return self.newest, tuple(sorted(self.counts.items())), ids


def builds_now(ledger: Ledger, own: Mapping[str, str]) -> BuildsNow:
    """Return the builds of the principal with this label filter."""

    def some(count: int = SHOWN, **choice: object) -> list[BuildRecord]:
        picked = BuildChoice(own=own, **choice)  # type: ignore[arg-type]
        return list(ledger.builds.page(picked, count, _BYTES).builds)

    under_way = [s for s in BuildState if s not in (BuildState.QUEUED, BuildState.FINISHED)]
    # Of each result alone an index has the newest.
    failed = [row for result in FAILED for row in some(results=[result])]
    return BuildsNow(
        running=some(states=under_way),
        waiting=some(states=[BuildState.QUEUED], above="")[::-1],
        failed=sorted(failed, key=lambda row: row.id, reverse=True)[:SHOWN],
        counts=ledger.builds.open_counts(own),
        newest=next((row.id for row in some(1)), ""),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseNow:
    """The house itself, for who sees all. `faults`: sentences of what is wrong with the reaper and
    with clocks; `vms`: open ones, by provider."""

    pools: Sequence[PoolStatus]
    nodes: Sequence[Node]
    budgets: Sequence[BudgetState]
    faults: Sequence[str]
    passed_at: float | None
    swept_at: float | None
    vms: Mapping[str, int]


def house_now(ledger: Ledger, providers: ProviderSet) -> HouseNow:
    """Overview of this installation by its ledger; no cloud is asked."""
    watch = audit.watch(ledger)
    return HouseNow(
        pools=pools.status(ledger, providers),
        nodes=nodes.status(ledger, ledger.engines.now()),
        budgets=ledger.budgets.states(time.time()),
        faults=[line.message for line in (*audit.silence(ledger), *audit.clocks(ledger))],
        passed_at=watch.passed,
        swept_at=watch.swept,
        vms=Counter(row.provider for row in ledger.instances.open()),
    )
