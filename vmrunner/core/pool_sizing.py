"""The number of VMs that a pool should hold: by a schedule, or by demand and money. Pure; times are
epoch seconds, hours and days are UTC.

Demand: a pool is a base-stock system. Each claim orders one replacement, which comes after the lead
time L. A build finds a VM if fewer than S replacements are under way. With Poisson arrivals these
are Poisson(rate × L), so the hit rate of S VMs is P[Poisson(rate × L) ≤ S − 1] (Hadley and Whitin,
"Analysis of Inventory Systems", 1963, chapter 4). Builds that come g at a time order g, and the
place in its own batch decides for a build: the same in batches, S / g of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cronsim import CronSim

from vmrunner.core import cron_line
from vmrunner.errors import ConfigError

#: Seconds until a pool's VM is ready, while none was measured. The slowest that is published for
#: EC2 and GCE is 42 s to SSH; the rest is for our own settling. Too long costs an idle VM or two.
DEFAULT_LEAD_TIME: Final = 60.0

HOURS_OF_WEEK: Final = 168
HALF_LIFE: Final = 14 * 86400.0  # seconds until an arrival counts half
BURST_HALF_LIFE: Final = 900.0  # … in the correction for a burst: a quarter after half an hour
#: Seconds that the fallback of an hour weighs: against much more of its own it counts little, and
#: an arrival in the first second of all is not one a second.
FALLBACK_SECONDS: Final = 600.0
FEW: Final = 5.0  # arrivals of which little is concluded about batches
_LATEST: Final = 100  # arrivals that are remembered one by one, at most
#: What is older weighs nothing: 2⁻¹³, and 0.4 % of a burst.
_MEMORY: Final = 13 * HALF_LIFE
_BURST_MEMORY: Final = 8 * BURST_HALF_LIFE

_HOUR: Final = 3600
_DAY: Final = 86400.0
_EPOCH_HOUR: Final = 72  # 1970 began on a Thursday; hour 0 is Monday's first


def scheduled_size(schedule: Sequence[tuple[str, int]], now: float) -> int:
    """Return the size of the entry, (cron line, VMs), that fired last at or before `now`. Of two
    that fired together the later in the list counts.

    However long ago that was: a line for each month's first day holds all month. Raises
    `ConfigError`, which names the line, when one cannot be read, and when there is none.
    """
    if not schedule:
        raise ConfigError("schedule: no entry", hint='[{ cron = "0 8 * * 1-5", size = 8 }]')
    after = datetime.fromtimestamp(math.floor(now) + 1, UTC)
    fired = [
        (next(CronSim(cron_line.check(line, "schedule"), after, reverse=True)), number)
        for number, (line, _) in enumerate(schedule)
    ]
    return schedule[max(fired)[1]][1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """Builds of one shape that came, by hour of the week (UTC, from Monday 00:00).

    Of each hour: the builds, and the seconds that were watched. Both weigh less the older they
    are, by the same half-life, so that their ratio is a weighted mean. `Arrivals(until=t)` has
    seen nothing and begins to watch at `t`. Whether they come in batches is told by how many came
    within a lead time before each, beyond what their rate explains.
    """

    until: float  # watched up to here, exclusive
    counts: tuple[float, ...] = (0.0,) * HOURS_OF_WEEK  # weighted builds
    seconds: tuple[float, ...] = (0.0,) * HOURS_OF_WEEK  # weighted seconds
    recent: float = 0.0  # builds, weighted by BURST_HALF_LIFE
    near: float = 0.0  # weighted builds within a lead time before another
    latest: tuple[float, ...] = ()  # the last ones, as far as they are near to what comes

    def dump(self) -> dict[str, Any]:
        """Return a plain dict that can be stored as JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Arrivals:
        """The arrivals that `dump` gave. Raises ValueError for anything else."""
        try:
            loaded = cls(
                until=float(stored["until"]),
                counts=tuple(map(float, stored["counts"])),
                seconds=tuple(map(float, stored["seconds"])),
                recent=float(stored["recent"]),
                near=float(stored.get("near", 0.0)),
                latest=tuple(map(float, stored.get("latest", ()))),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not stored arrivals: {error!r}") from error
        weights = (*loaded.counts, *loaded.seconds, loaded.recent, loaded.near)
        if not all(map(math.isfinite, (loaded.until, *loaded.latest))) or not all(
            0 <= w < math.inf for w in weights
        ):
            raise ValueError("not stored arrivals: a weight or time that cannot be")
        if not len(loaded.counts) == len(loaded.seconds) == HOURS_OF_WEEK:
            raise ValueError(f"not stored arrivals: not {HOURS_OF_WEEK} hours")
        return loaded

    def batch(self, lead_time: float = DEFAULT_LEAD_TIME) -> float:
        """Return the mean size of batches, 1 when each build comes by itself. In one of g builds
        (g − 1) / 2 came before another, in the mean."""
        alone = sum(count * self._usual(hour) for hour, count in enumerate(self.counts) if count)
        return 1 + 2 * max(0.0, self.near - alone * lead_time) / (sum(self.counts) + FEW)

    def observed(
        self, arrivals: Iterable[float], until: float, lead_time: float = DEFAULT_LEAD_TIME
    ) -> Arrivals:
        """These arrivals and those since: `arrivals` are times of builds in any order, and no other
        came before `until`. Those within `lead_time` seconds are near to each other.

        Times before the last `until` were counted then, those from the new one on will be; both are
        left out. A clock that went back changes nothing. Raises ValueError when `until` is not
        finite.
        """
        if not math.isfinite(until):
            raise ValueError(f"until: {until}: not a time")
        if until <= self.until:
            return self
        passed = until - self.until
        fade = _left(passed, HALF_LIFE)
        counts = [count * fade for count in self.counts]
        seconds = [second * fade for second in self.seconds]
        for hour, start, end in _hours(max(self.until, until - _MEMORY), until):
            seconds[hour] += _left_between(until - end, until - start, HALF_LIFE)
        recent = self.recent * _left(passed, BURST_HALF_LIFE)
        near, latest = self.near * fade, list(self.latest)
        for at in sorted(arrivals):
            if self.until <= at < until:
                weight = _left(until - at, HALF_LIFE)
                counts[_hour_of_week(at)] += weight
                recent += _left(until - at, BURST_HALF_LIFE)
                near += weight * (len(latest) - bisect_left(latest, at - lead_time))
                latest.append(at)
        kept = latest[bisect_left(latest, until - lead_time) :]
        return Arrivals(
            until=until,
            counts=tuple(counts),
            seconds=tuple(seconds),
            recent=recent,
            near=near,
            latest=tuple(kept[-_LATEST:]),
        )

    def rate(self, at: float, ahead: float) -> float:
        """Return the builds a second that are expected from `at` for `ahead` seconds (at least
        one).

        It is the mean of the hours of the week, and what came lately beyond it, which fades from
        `until` on. Less than usual lately lowers nothing.
        """
        ahead = max(ahead, 1.0)
        usual = sum(self._usual(h) * (end - start) for h, start, end in _hours(at, at + ahead))
        expected = sum(
            self._usual(hour) * _left_between(self.until - end, self.until - start, BURST_HALF_LIFE)
            for hour, start, end in _hours(self.until - _BURST_MEMORY, self.until)
        )
        beyond = max(0.0, self.recent - expected) / _left_between(0.0, math.inf, BURST_HALF_LIFE)
        age = max(0.0, at - self.until)
        return (usual + beyond * _left_between(age, age + ahead, BURST_HALF_LIFE)) / ahead

    def _usual(self, hour: int) -> float:
        """Builds a second in this hour of the week: its own, as far as it was watched, then those
        of its neighbours, then the mean of all."""
        rate = 0.0
        for hours in (range(HOURS_OF_WEEK), (hour - 1, (hour + 1) % HOURS_OF_WEEK), (hour,)):
            count = sum(self.counts[h] for h in hours) + rate * FALLBACK_SECONDS
            rate = count / (sum(self.seconds[h] for h in hours) + FALLBACK_SECONDS)
        return rate


def demanded_size(
    rate: float,
    lead_times: Sequence[float],
    hit_rate: float,
    least: int,
    most: int,
    batch: float = 1.0,
) -> int:
    """Return the smallest size, within `least` and `most`, at which the share `hit_rate` of builds
    finds a VM; `most` when none is enough, `least` when nothing arrives.

    `rate`: builds a second. `lead_times`: seconds from order to ready, as measured (or quantiles of
    these); none: `DEFAULT_LEAD_TIME`. The hit rate is the mean over them, not that of their mean:
    a slow cloud is slow for all VMs under way at once. `batch`: builds that come at once, in the
    mean. Raises ValueError for a share outside 0 to 1, `most` below `least`, a rate or time that is
    negative or not finite, and a batch below 1.
    """
    means = [rate * lead for lead in lead_times or (DEFAULT_LEAD_TIME,)]
    if rate < 0 or any(lead < 0 for lead in lead_times) or not all(map(math.isfinite, means)):
        raise ValueError(f"rate {rate}: it and the lead times must be finite and not negative")
    if not 0 <= hit_rate <= 1 or not 0 <= least <= most or not 1 <= batch < math.inf:
        raise ValueError(
            f"hit rate {hit_rate}, least {least}, most {most}, batch {batch}: out of bounds"
        )
    if rate == 0:
        return least
    missed = len(means) * (1 - hit_rate)
    return least + bisect_left(
        range(least, most),
        True,
        key=lambda size: math.fsum(_missed(size, mean, batch) for mean in means) <= missed,
    )


def affordable_size(
    size: int, usd_hour: float, usd_per_day: float | None, spent_today: float, now: float
) -> int:
    """The number of VMs, of `size`, that may idle until midnight (UTC) within the cap.

    `usd_hour`: what one costs an hour; 0: it is free and `size` stands. `usd_per_day`: the cap in
    USD; None: there is none. `spent_today`: USD that idle VMs have cost since midnight. Once the
    cap is spent the answer is 0.
    """
    each = usd_hour * (_DAY - now % _DAY) / _HOUR
    if usd_per_day is None or each <= 0:
        return size
    rest = max(0.0, usd_per_day - spent_today)
    return math.floor(min(size, rest / each + 1e-9))  # 1.68 USD a day is one VM at 0.07


def _hour_of_week(at: float) -> int:
    return (int(at // _HOUR) + _EPOCH_HOUR) % HOURS_OF_WEEK


def _hours(start: float, end: float) -> Iterator[tuple[int, float, float]]:
    """Each clock hour from `start` to `end`: its hour of the week, and the part that is within."""
    for hour in range(int(start // _HOUR), int(end // _HOUR) + 1):
        first, last = max(start, float(hour * _HOUR)), min(end, float((hour + 1) * _HOUR))
        if first < last:
            yield _hour_of_week(first), first, last


def _left(age: float, half_life: float) -> float:
    """Weight of what is `age` seconds old."""
    return math.exp2(-age / half_life)


def _left_between(young: float, old: float, half_life: float) -> float:
    """Weighted seconds (the integral of `_left`) between two ages."""
    return (_left(young, half_life) - _left(old, half_life)) * half_life / math.log(2)


def _missed(size: int, mean: float, batch: float) -> float:
    """The share of builds that find none of `size` VMs, `mean` of which are under way in the
    mean. Of a batch for which there is not enough, the first ones find theirs."""
    whole = math.floor(size / batch)
    part = size / batch - whole
    short, shorter = (_poisson_at_least(n, mean / batch) for n in (whole, whole + 1))
    return (1 - part) * short + part * shorter


def _poisson_at_least(size: int, mean: float) -> float:
    """P[Poisson(mean) ≥ size].

    Summed from the term beside `size` outwards, on the side away from the mode. Terms fall there,
    so that nothing is lost to rounding, and no power or factorial is ever written out.
    """
    if size <= 0 or mean == 0:
        return float(size <= 0)
    below = size < mean
    k = size - 1 if below else size
    term = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
    total = 0.0
    while term > total * 1e-17:
        total += term
        term *= k / mean if below else mean / (k + 1)
        k += -1 if below else 1
    return 1 - total if below else total
