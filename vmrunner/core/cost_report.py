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
#: Seconds that a VM may have been there whose row is left out where sums have it.
LONGEST_SUMMED: Final = DAY


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
    """One VM, as a report counts it. `until`: a midnight from which on it is in the sums of days,
    and so is its build if that had a VM after it (`build_end`: when its last one was gone)."""

    what: CostKind
    build: str | None
    vm: str
    provider: str
    rate: Rate
    parts: Sequence[Billed]
    over: bool  # nothing is added to it any more
    until: float = math.inf
    build_end: float = 0.0


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
    """Cost of VMs in one day. `…_ended`: those of them whose last day it was, so that all days from
    one on are added up without counting one twice."""

    usd: float = 0.0
    seconds: float = 0.0
    unpriced: int = 0
    unpriced_ended: int = 0
    builds: int = 0
    builds_ended: int = 0
    vms: int = 0
    vms_ended: int = 0
    price_at: float | None = None


Grouping = Callable[[Spent], str | None]


def kind_of(build: str | None, role: Role) -> CostKind:
    """The kind of a VM's costs: of a build, of a template, or of a pool while no build has claimed
    it."""
    if role is Role.IMAGE:
        return CostKind.IMAGES
    return CostKind.UNCLAIMED if build is None else CostKind.BUILDS


def of_instance(row: Instance, now: float) -> Spent:
    """Return a VM of an instance's row."""
    parts = tuple(pricing.billed(row, now))
    over = row.gone_at is not None
    what = kind_of(row.build, row.role)
    return Spent(what, row.build, row.id, row.provider, row.rate, parts, over)


def of_image(row: MadeImage, now: float) -> Spent:
    """Return the builder of an image."""
    over = row.closed_at is not None
    parts = (pricing.image_billed(row, now),)
    return Spent(CostKind.IMAGES, None, row.builder, row.provider, row.rate, parts, over)


def midnight(at: float) -> float:
    """The time at which the day (UTC) of that moment began, in epoch seconds."""
    return at - at % DAY


def next_midnight(at: float) -> float:
    """Return the first midnight in UTC that is not before that moment."""
    return -midnight(-at)


def summable(spent: Iterable[Spent]) -> bool:
    """True if sums of days tell all that a report tells of these VMs of one build. One that had a
    price for a part of its time only has none in a report that counts all of it; and rows that are
    in sums are looked for near the end of a day."""
    return all(
        len({part.usd_hour is None for part in item.parts}) == 1
        and item.parts[-1].end - item.parts[0].start <= LONGEST_SUMMED
        for item in spent
        if item.parts
    )


def day_sums(spent: Iterable[Spent], owner: Callable[[str], Owner]) -> dict[DayKey, DaySum]:
    """Return the sums of VMs that are gone. All of a build must be among them. `owner`: of a build
    by its id."""
    sums: dict[DayKey, DaySum] = {}
    found = sorted((item for item in spent if item.parts), key=lambda item: item.parts[-1].end)
    ends = {item.build or item.vm: _last_day(item) for item in found}
    counted: set[tuple[float, str]] = set()
    for item in found:
        name, last = item.build or item.vm, _last_day(item)
        whose = Owner() if item.build is None else owner(item.build)
        day = midnight(item.parts[0].start)
        while day <= last:
            key = DayKey(day, item.what, item.provider, whose, item.rate.source)
            total = sums.setdefault(key, DaySum())
            usd = pricing.added(part.usd(day, day + DAY) for part in item.parts)
            total.usd += usd or 0.0
            total.seconds += sum(part.seconds(day, day + DAY) for part in item.parts)
            total.unpriced += usd is None
            total.unpriced_ended += usd is None and day == last
            total.vms += 1
            total.vms_ended += day == last
            if item.build is not None and (day, name) not in counted:
                counted.add((day, name))
                total.builds += 1
                total.builds_ended += day == ends[name]
            times = (at for at in (total.price_at, item.rate.at) if at is not None)
            total.price_at = min(times, default=None)
            day += DAY
    return sums


def _last_day(item: Spent) -> float:
    return next_midnight(item.parts[-1].end) - DAY


def report(
    spent: Iterable[Spent],
    since: float,
    group: Grouping | None,
    days: Iterable[tuple[str | None, DayKey, DaySum]] = (),
) -> list[CostLine]:
    """Return the lines of a report: of builds one for each group, by its name; then the rest. What
    was spent before `since` is left out. `group` None: by day, in UTC. `days`: sums of VMs that
    are not in `spent` on these days, each with its group."""
    sums: dict[tuple[CostKind, str | None], _Sum] = {}
    for item in spent:
        by_day = group is None and item.what is CostKind.BUILDS
        for key, start, end in _groups(item, since, group):
            sums.setdefault((item.what, key), _Sum()).add(item, start, end, by_day=by_day)
    for name, of, day in days:
        by_day = group is None and of.what is CostKind.BUILDS
        name = None if of.what is not CostKind.BUILDS else _date(of.day) if by_day else name
        sums.setdefault((of.what, name), _Sum()).add_day(of, day, by_day=by_day)
    order = list(CostKind)
    ranked = sorted(sums.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or "~"))
    return [line for (what, key), found in ranked if (line := found.line(what, key)).vms]


def _date(day: float) -> str:
    return f"{datetime.fromtimestamp(day, UTC):%Y-%m-%d}"


def _groups(
    item: Spent, since: float, group: Grouping | None
) -> Iterator[tuple[str | None, float, float]]:
    if item.what is not CostKind.BUILDS:
        yield None, since, item.until
    elif group is not None:
        yield group(item), since, item.until
    elif item.parts:
        first, last = max(since, item.parts[0].start), min(item.parts[-1].end, item.until)
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

    def add(self, item: Spent, start: float, end: float, *, by_day: bool) -> None:
        seconds = sum(part.seconds(start, end) for part in item.parts)
        if not seconds:
            return
        usd = pricing.added(part.usd(start, end) for part in item.parts)
        if by_day or item.parts[-1].end <= item.until:
            self.vms.add(item.vm)
            self.unpriced += usd is None
        if item.build is not None and (by_day or item.build_end <= item.until):
            self.builds.add(item.build)
        self.seconds += seconds
        self.usd += usd or 0.0
        self.final = self.final and (item.over or item.parts[-1].end > end)
        self.source = pricing.least_sure([self.source, item.rate.source])
        self.at = min((at for at in (self.at, item.rate.at) if at is not None), default=None)

    def add_day(self, key: DayKey, day: DaySum, *, by_day: bool) -> None:
        """Add a sum. `by_day`: it is the only day; else what ended later is counted there."""
        self.past_builds += day.builds if by_day else day.builds_ended
        self.past_vms += day.vms if by_day else day.vms_ended
        self.unpriced += day.unpriced if by_day else day.unpriced_ended
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
