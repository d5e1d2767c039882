"""The arrivals that the benches of pools are fed with."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest

from bench.pool_arrivals import DAY, HOUR, MONDAY, WEEK, bursts, nightly_lull, poisson, trace


@pytest.mark.parametrize(
    "made",
    [
        lambda seed: poisson(60, seed=seed),
        lambda seed: bursts(2, 20, seed=seed),
        lambda seed: nightly_lull(60, seed=seed),
    ],
)
def test_a_seed_gives_one_week_in_order(made: Callable[[int], list[float]]) -> None:
    times = made(1)
    assert times == made(1) != made(2)
    assert times == sorted(times)
    assert times[0] >= MONDAY
    assert times[-1] < MONDAY + WEEK


def test_poisson_arrivals_come_at_their_rate_and_independently() -> None:
    times = poisson(60, seed=1)
    assert len(times) == pytest.approx(60 * 168, rel=0.04)
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)
    assert poisson(0, seed=1) == []


def test_bursts_come_close_together() -> None:
    times = bursts(1, 20, seed=1, within=30)
    assert len(times) == pytest.approx(168 * 20, rel=0.25)
    close = sum(times[n + 10] - times[n] < 30 for n in range(len(times) - 10))
    assert close / len(times) > 0.4  # ten of Poisson's would take half an hour


def test_nights_and_weekends_are_calm() -> None:
    times = nightly_lull(100, seed=1)
    by_day = [
        at
        for at in times
        if (at - MONDAY) % WEEK < 5 * DAY and 8 * HOUR <= (at - MONDAY) % DAY < 20 * HOUR
    ]
    assert len(by_day) == pytest.approx(100 * 60, rel=0.05)
    assert len(times) - len(by_day) == pytest.approx(5 * 108, rel=0.2)


def test_a_trace_has_either_kind_of_time() -> None:
    lines = ["345601.5,build-2\n", "\n", "1970-01-05T00:00:00Z\n", '"1970-01-05 02:00:01+02:00"\n']
    assert trace([*lines, "1970-01-05T00:00:03"]) == [
        MONDAY,
        MONDAY + 1,
        MONDAY + 1.5,
        MONDAY + 3,
    ]
    with pytest.raises(ValueError, match="line 2: 'nan': neither"):
        trace(["1", "nan"])
