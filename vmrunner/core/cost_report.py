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


class Owner(NamedTuple):
    """Owner of a build, as sums tell it."""

    tenant: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted


class DayKey(NamedTuple):
    """Attributes that the VMs of one sum have in common. `day`: its midnight, in UTC."""

    day: float
    what: CostKind
    provider: str
    owner: Owner
    source: PriceSource


@dataclass(kw_only=True, slots=True)
class DaySum:
    """Cost of VMs in one day. `…_begun`: those of them whose first day it was, so that several
    days are added up without counting one twice."""

    usd: float = 0.0
    seconds: float = 0.0
    unpriced: int = 0
    unpriced_begun: int = 0
    builds: int = 0
    builds_begun: int = 0
    vms: int = 0
    vms_begun: int = 0
    price_at: float | None = None


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


def midnight(at: float) -> float:
    """The time at which the day (UTC) of that moment began, in epoch seconds."""
    return at - at % DAY


def day_sums(spent: Iterable[Spent], owner: Callable[[str], Owner]) -> dict[DayKey, DaySum]:
    """Return the sums of VMs that are gone. All of a build must be among them. `owner`: of a build
    by its id."""
    sums: dict[DayKey, DaySum] = {}
    counted: set[tuple[DayKey, str]] = set()
    begun: set[str] = set()
    for item in sorted(
        (item for item in spent if item.parts), key=lambda item: item.parts[0].start
    ):
        whose = Owner() if item.build is None else owner(item.build)
        first, last = item.parts[0].start, item.parts[-1].end
        day = midnight(first)
        while day < last:
            key = DayKey(day, item.what, item.provider, whose, item.rate.source)
            found = sums.setdefault(key, DaySum())
            new = day <= first
            seconds = sum(part.seconds(day, day + DAY) for part in item.parts)
            usd = pricing.added(part.usd(day, day + DAY) for part in item.parts)
            found.usd += usd or 0.0
            found.seconds += seconds
            found.unpriced += usd is None
            found.unpriced_begun += usd is None and new
            found.vms += 1
            found.vms_begun += new
            if item.build is not None and (key, item.build) not in counted:
                counted.add((key, item.build))
                found.builds += 1
                found.builds_begun += item.build not in begun
                begun.add(item.build)
            times = (at for at in (found.price_at, item.rate.at) if at is not None)
            found.price_at = min(times, default=None)
            day += DAY
    return sums


def report(
    spent: Iterable[Spent],
    since: float,
    group: Grouping | None,
    days: Iterable[tuple[str | None, DayKey, DaySum]] = (),
) -> list[CostLine]:
    """Return the lines of a report: of builds one for each group, by its name; then the rest. What
    was spent before `since` is left out. `group` None: by day, in UTC. `days`: sums of VMs that
    have no row any more, each with its group; the day in which `since` lies counts whole."""
    sums: dict[tuple[CostKind, str | None], _Sum] = {}
    for one in spent:
        for key, start, end in _groups(one, since, group):
            sums.setdefault((one.what, key), _Sum()).add(one, start, end)
    first = midnight(since)
    for name, of, day in days:
        by_day = group is None and of.what is CostKind.BUILDS
        name = None if of.what is not CostKind.BUILDS else _date(of.day) if by_day else name
        sums.setdefault((of.what, name), _Sum()).add_day(
            of, day, anew=not by_day and of.day > first
        )
    order = list(CostKind)
    ranked = sorted(sums.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or "~"))
    return [line for (what, key), found in ranked if (line := found.line(what, key)).vms]


def _date(day: float) -> str:
    return f"{datetime.fromtimestamp(day, UTC):%Y-%m-%d}"


def _groups(
    item: Spent, since: float, group: Grouping | None
) -> Iterator[tuple[str | None, float, float]]:
    if item.what is not CostKind.BUILDS:
        yield None, since, math.inf
    elif group is not None:
        yield group(item), since, math.inf
    elif item.parts:
        first, last = max(since, item.parts[0].start), item.parts[-1].end
        while first < last:
            next_day = midnight(first) + DAY
            yield _date(first), first, min(next_day, last)
            first = next_day


class _Sum:
    """A line in the making."""

    def __init__(self) -> None:
        self.builds: set[str] = set()
        self.vms: set[str] = set()
        self.past_builds = self.past_vms = 0
        self.seconds = 0.0
        self.usd = 0.0
        self.unpriced = 0
        self.final = True
        self.source: PriceSource | None = None
        self.at: float | None = None

    def add(self, item: Spent, start: float, end: float) -> None:
        seconds = sum(part.seconds(start, end) for part in item.parts)
        if not seconds:
            return
        self.vms.add(item.vm)
        self.builds.update([item.build] if item.build else [])
        self.seconds += seconds
        usd = pricing.added(part.usd(start, end) for part in item.parts)
        self.usd += usd or 0.0
        self.unpriced += usd is None
        self.final = self.final and (item.over or item.parts[-1].end > end)
        self.source = pricing.least_sure([self.source, item.rate.source])
        self.at = min((at for at in (self.at, item.rate.at) if at is not None), default=None)

    def add_day(self, key: DayKey, day: DaySum, *, anew: bool) -> None:
        """Add a sum. `anew`: what began before is counted already."""
        self.past_builds += day.builds_begun if anew else day.builds
        self.past_vms += day.vms_begun if anew else day.vms
        self.unpriced += day.unpriced_begun if anew else day.unpriced
        self.seconds += day.seconds
        self.usd += day.usd
        self.source = pricing.least_sure([self.source, key.source])
        self.at = min((at for at in (self.at, day.price_at) if at is not None), default=None)

    def line(self, what: CostKind, key: str | None) -> CostLine:
        cost = Cost(
            known=self.usd,
            unpriced=self.unpriced,
            final=self.final,
            source=self.source,
            at=self.at,
        )
        return CostLine(
            what=what,
            key=key,
            cost=cost,
            builds=len(self.builds) + self.past_builds,
            vms=len(self.vms) + self.past_vms,
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
