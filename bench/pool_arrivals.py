"""A week's builds for the benches of pools: the times at which they come, in order, as epoch
seconds. The same seed gives the same times."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
MONDAY: Final = 4 * DAY  # the first Monday of 1970, 00:00 UTC
#: A day as 20261102 would be ISO too; it is seconds here.
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)


def poisson(
    per_hour: float, *, seed: int, start: float = MONDAY, seconds: float = WEEK
) -> list[float]:
    """Builds that come independently of each other, `per_hour` of them in the mean."""
    chance = random.Random(seed)
    times: list[float] = []
    at = start
    while per_hour and (at := at + chance.expovariate(per_hour / HOUR)) < start + seconds:
        times.append(at)
    return times


def bursts(
    per_hour: float,
    size: int,
    *,
    seed: int,
    within: float = 60.0,
    start: float = MONDAY,
    seconds: float = WEEK,
) -> list[float]:
    """`per_hour` bursts of `size` builds each, as a matrix of jobs makes them: within that many
    seconds, and before the end."""
    chance = _other(seed)
    heads = poisson(per_hour, seed=seed, start=start, seconds=seconds)
    times = (head + chance.uniform(0, within) for head in heads for _ in range(size))
    return sorted(at for at in times if at < start + seconds)


def nightly_lull(
    per_hour: float, *, seed: int, night: float = 0.05, start: float = MONDAY, seconds: float = WEEK
) -> list[float]:
    """`per_hour` builds by day, 8 to 20 o'clock UTC on working days; at other times the share
    `night` of that."""

    def share(at: float) -> float:
        working = (at - MONDAY) % WEEK < 5 * DAY and 8 * HOUR <= at % DAY < 20 * HOUR
        return 1.0 if working else night

    return thinned(poisson(per_hour, seed=seed, start=start, seconds=seconds), share, seed=seed)


def thinned(times: Iterable[float], share: Callable[[float], float], *, seed: int) -> list[float]:
    """Each time with the probability that `share` gives it."""
    chance = _other(seed)
    return [at for at in times if chance.random() < share(at)]


def trace(lines: Iterable[str]) -> list[float]:
    """Recorded times: the first column of CSV, epoch seconds or ISO 8601 (UTC unless it says
    otherwise). Empty lines are skipped. Raises ValueError with the number of a line that is
    neither."""
    return sorted(
        _time(text, number)
        for number, line in enumerate(lines, 1)
        if (text := line.split(",")[0].strip().strip('"'))
    )


def _other(seed: int) -> random.Random:
    """Chance apart from that which made the times of this seed."""
    return random.Random(~seed)


def _time(text: str, number: int) -> float:
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"line {number}: {text!r}: neither epoch seconds nor ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
