"""Sums of what VMs cost in a span of time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from vmrunner.core import pricing
from vmrunner.core.pricing import Billed
from vmrunner.model import Cost, Instance, MadeImage, PriceSource, Rate, Role

DAY: Final = 86_400.0


class CostKind(StrEnum):
    """Things that money is spent on."""

    BUILDS = "builds"
    UNCLAIMED = "unclaimed"  # VMs of a pool that no build has used
    IMAGES = "images"  # VMs that images and templates are made of


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLine:
    """One line of a report. `key`: the group that it is, such as a provider's name; None: builds
    without that label, or no group."""

    what: CostKind
    key: str | None
    cost: Cost
    builds: int = 0
    vms: int = 0
    seconds: float = 0.0  # that these VMs were there


class Spent(NamedTuple):
    """One VM, as a report counts it."""

    what: CostKind
    build: str | None
    vm: str
    provider: str
    rate: Rate
    parts: Sequence[Billed]
    over: bool  # nothing is added to it any more


Grouping = Callable[[Spent], str | None]


def of_instance(row: Instance, now: float) -> Spent:
    """Return a VM of a build, of a template, or of a pool while no build has claimed it."""
    what = CostKind.UNCLAIMED if row.build is None else CostKind.BUILDS
    if row.role is Role.IMAGE:
        what = CostKind.IMAGES
    parts = tuple(pricing.billed(row, now))
    over = row.gone_at is not None
    return Spent(what, row.build, row.id, row.provider, row.rate, parts, over)


def of_image(row: MadeImage, now: float) -> Spent:
    """Return the builder of an image."""
    over = row.closed_at is not None
    parts = (pricing.image_billed(row, now),)
    return Spent(CostKind.IMAGES, None, row.builder, row.provider, row.rate, parts, over)


def report(spent: Iterable[Spent], since: float, group: Grouping | None) -> list[CostLine]:
    """Return the lines of a report: of builds one for each group, by its name; then the rest. What
    was spent before `since` is left out. `group` None: by day, in UTC."""
    sums: dict[tuple[CostKind, str | None], _Sum] = {}
    for one in spent:
        for key, start, end in _groups(one, since, group):
            sums.setdefault((one.what, key), _Sum()).add(one, start, end)
    order = list(CostKind)
    ranked = sorted(sums.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or "~"))
    return [found.line(what, key) for (what, key), found in ranked if found.vms]


def _groups(
    one: Spent, since: float, group: Grouping | None
) -> Iterator[tuple[str | None, float, float]]:
    if one.what is not CostKind.BUILDS:
        yield None, since, math.inf
    elif group is not None:
        yield group(one), since, math.inf
    elif one.parts:
        first, last = max(since, one.parts[0].start), one.parts[-1].end
        while first < last:
            midnight = first - first % DAY + DAY
            yield f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d}", first, min(midnight, last)
            first = midnight


class _Sum:
    """A line in the making."""

    def __init__(self) -> None:
        self.builds: set[str] = set()
        self.vms: set[str] = set()
        self.seconds = 0.0
        self.known = 0.0
        self.unpriced = 0
        self.final = True
        self.source: PriceSource | None = None
        self.at: float | None = None

    def add(self, one: Spent, start: float, end: float) -> None:
        seconds = sum(part.seconds(start, end) for part in one.parts)
        if not seconds:
            return
        self.vms.add(one.vm)
        self.builds.update([one.build] if one.build else [])
        self.seconds += seconds
        usd = pricing.added(part.usd(start, end) for part in one.parts)
        self.known += usd or 0.0
        self.unpriced += usd is None
        self.final = self.final and (one.over or one.parts[-1].end > end)
        self.source = pricing.least_sure([self.source, one.rate.source])
        self.at = min((at for at in (self.at, one.rate.at) if at is not None), default=None)

    def line(self, what: CostKind, key: str | None) -> CostLine:
        cost = Cost(
            known=self.known,
            unpriced=self.unpriced,
            final=self.final,
            source=self.source,
            at=self.at,
        )
        return CostLine(
            what=what,
            key=key,
            cost=cost,
            builds=len(self.builds),
            vms=len(self.vms),
            seconds=self.seconds,
        )


def total(lines: Sequence[CostLine]) -> Cost:
    """Return the sum of all lines."""
    return Cost(
        known=sum(line.cost.known for line in lines),
        unpriced=sum(line.cost.unpriced for line in lines),
        final=all(line.cost.final for line in lines),
        source=pricing.least_sure(line.cost.source for line in lines),
        at=min((line.cost.at for line in lines if line.cost.at is not None), default=None),
    )
