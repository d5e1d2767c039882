"""Costs of builds, and of all that was spent, as people and programs read them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmrunner.core import cost_report, pricing
from vmrunner.core.cost_report import CostKind, CostLine
from vmrunner.errors import ConfigError
from vmrunner.model import BuildRecord, Cost, Instance, PriceSource, Scope

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.provider_set import ProviderSet

PROVIDER: Final = "provider"
DAY: Final = "day"
LABEL: Final = "label:"  # and its name

_BASES: Final = {
    PriceSource.OWN: "your own machine",
    PriceSource.CLOUD: "prices of the cloud",
    PriceSource.PROVIDER: "prices of the driver",
    PriceSource.SHIPPED: "prices shipped with vmrunner",
    PriceSource.UNKNOWN: "no price is known",
}


def check_group(by: str) -> str:
    """Return `by`. Raises ConfigError where it is no way to group builds."""
    label = by.removeprefix(LABEL)
    if by not in (PROVIDER, DAY) and (label == by or not label):
        raise ConfigError(
            f"by: {by!r} groups no builds", hint="provider, day, or label:NAME such as label:team"
        )
    return by


def report(
    ledger: Ledger,
    providers: ProviderSet,
    *,
    by: str = PROVIDER,
    since: float = 7 * cost_report.DAY,
    own: Mapping[str, str] | None = None,
) -> list[CostLine]:
    """Costs of the last `since` seconds, of builds by group, on VMs of pools that
    no build used, and on images. With `own` builds alone, of the principal with that
    label filter. What a VM cost before that time is left out. Raises ConfigError."""
    check_group(by)
    begun, such = time.time() - since, own or {}
    rows = ledger.spending.since(begun, such)
    images = () if such else ledger.spending.images(begun)
    clocks = {(row.provider, row.scope) for row in (*rows.open, *images)}
    times = {key: providers.time_at(*key) for key in clocks}
    spent = list(rows.spent)
    spent += [cost_report.of_instance(row, times[row.provider, row.scope]) for row in rows.open]
    spent += [cost_report.of_image(row, times[row.provider, row.scope]) for row in images]
    if by.startswith(LABEL):
        label = by.removeprefix(LABEL)
        builds = {spending.build for spending in spent if spending.build is not None}
        values = ledger.spending.values(label, builds)
        owners = ledger.spending.credited(label, {key.owner for key, _ in rows.days})
        days = [(owners.get(key.owner), key, day) for key, day in rows.days]
        return cost_report.report(spent, begun, lambda vm: values.get(vm.build or ""), days)
    group = (lambda vm: vm.provider) if by == PROVIDER else None
    days = [(key.provider, key, day) for key, day in rows.days]
    return cost_report.report(spent, begun, group, days)


def until_now(
    ledger: Ledger, providers: ProviderSet, builds: Sequence[BuildRecord]
) -> list[BuildRecord]:
    """Return the builds with what each has cost until now: of one that has not ended, its row says
    what it had cost at its last change."""
    running = [build.id for build in builds if build.attempt and not build.finished]
    rows: defaultdict[str, list[Instance]] = defaultdict(list)
    for row in ledger.instances.of_builds(running):
        rows[row.build or ""].append(row)
    # Each clock is asked once: a driver that is not there takes its time to say so.
    clocks = {(row.provider, row.scope) for several in rows.values() for row in several}
    times = {clock: providers.time_at(*clock) for clock in clocks}
    return [
        replace(build, cost=_total(rows[build.id], times)) if build.id in rows else build
        for build in builds
    ]


def _total(rows: Sequence[Instance], times: Mapping[tuple[str, Scope], float]) -> Cost:
    return pricing.total(rows, lambda row: times[row.provider, row.scope], over=False)


def name(line: CostLine, by: str) -> str:
    """The name of a line, for people."""
    if line.what is CostKind.UNCLAIMED:
        return "unclaimed, of pools"
    if line.what is CostKind.IMAGES:
        return "images"
    return line.key or f"without label {by.removeprefix(LABEL)}"


def text(cost: Cost) -> str:
    """Return a cost for people; empty where no VM was born."""
    if cost.source is None:
        return ""
    if cost.usd is None:
        beside = f" beside ${cost.known:.4f}" if cost.known else ""
        return f"unknown{beside}: {basis(cost)}"
    return f"${cost.usd:.4f}{'' if cost.final else ' so far'} ({basis(cost)})"


def short(cost: Cost) -> str:
    """The same in a few characters, for a column."""
    if cost.source is None:
        return ""
    return "unknown" if cost.usd is None else f"${cost.usd:.4f}"


def basis(cost: Cost) -> str:
    """Return by which prices it was reckoned, and of which day these are."""
    if cost.source is None:
        return ""
    dated = cost.at is not None and cost.source in (PriceSource.CLOUD, PriceSource.SHIPPED)
    day = f" of {datetime.fromtimestamp(cost.at or 0.0, UTC):%Y-%m-%d}" if dated else ""
    return _BASES[cost.source] + day
