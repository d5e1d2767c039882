"""What a pool knows of the builds that came, and what it expects."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import pool_arrivals as arrivals
from vmrunner.core.pool_sizing import HALF_LIFE, HOURS_OF_WEEK, Arrivals

HOUR, DAY, WEEK = 3600.0, 86400.0, 7 * 86400.0
#: A Monday, 00:00 UTC.
MONDAY = datetime(2026, 11, 2, tzinfo=UTC).timestamp()

TIMES = st.lists(st.floats(MONDAY - DAY, MONDAY + 3 * WEEK), max_size=30)
MOMENTS = st.floats(MONDAY, MONDAY + 3 * WEEK)


def every(seconds: float, start: float, end: float) -> list[float]:
    return [start + n * seconds for n in range(math.ceil((end - start) / seconds))]


def weeks(count: int, of_one: Sequence[float]) -> Arrivals:
    """Return what is known after weeks that are alike; `of_one`: seconds from Monday."""
    times = [MONDAY + week * WEEK + at for week in range(count) for at in of_one]
    return Arrivals(until=MONDAY).observed(times, MONDAY + count * WEEK)


def about(history: Arrivals) -> dict[str, object]:
    return {name: pytest.approx(value, abs=1e-6) for name, value in history.dump().items()}


@settings(deadline=None)
@given(TIMES, MOMENTS, MOMENTS)
def test_watching_in_two_parts_is_watching_in_one(
    times: list[float], first: float, second: float
) -> None:
    """An arrival that is told twice counts once, too."""
    start, end = Arrivals(until=MONDAY), max(first, second)
    parts = start.observed(times, min(first, second)).observed(times, end)
    assert parts.dump() == about(start.observed(times, end))


@settings(deadline=None)
@given(TIMES, MOMENTS, MOMENTS, st.floats(0, WEEK))
def test_a_rate_is_a_rate_and_survives_storage(
    times: list[float], until: float, at: float, ahead: float
) -> None:
    history = Arrivals(until=MONDAY).observed(times, until)
    stored = json.loads(json.dumps(history.dump()))
    assert Arrivals.load(stored) == history
    rate = history.rate(at, ahead)
    assert 0 <= rate < math.inf
    assert Arrivals(until=MONDAY).observed([*times, until - 1], until).rate(at, ahead) >= rate


@pytest.mark.parametrize(
    "change",
    [
        {"counts": [0.0] * 167},
        {"seconds": [0.0] * 167 + [-1.0]},
        {"seconds": None},
        {"until": "soon"},
        {"until": math.nan},
        {"recent": math.inf},
    ],
)
def test_what_was_not_stored_by_us_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not stored arrivals"):
        Arrivals.load({**Arrivals(until=0.0).dump(), **change})
    with pytest.raises(ValueError, match="not stored arrivals: KeyError"):
        Arrivals.load({})


def test_before_anything_was_seen_nothing_is_expected() -> None:
    assert Arrivals(until=MONDAY).rate(MONDAY, HOUR) == 0


def test_a_steady_stream_is_expected_in_hours_never_seen() -> None:
    history = Arrivals(until=MONDAY).observed(every(10, MONDAY, MONDAY + DAY), MONDAY + DAY)
    for hours in (3, 25, 90, 160):
        assert history.rate(MONDAY + hours * HOUR, 60) == pytest.approx(0.1, rel=0.08)


def test_each_hour_of_the_week_has_its_own_rate() -> None:
    monday_at_nine = every(10, 9 * HOUR, 10 * HOUR)
    history = weeks(4, monday_at_nine)
    start = MONDAY + 4 * WEEK
    assert history.rate(start + 9 * HOUR, HOUR) == pytest.approx(0.1, rel=0.1)
    assert history.rate(start + 8 * HOUR, HOUR) < 0.01
    assert history.rate(start + 33 * HOUR, HOUR) < 0.001  # Tuesday at nine
    assert history.rate(start + 8.5 * HOUR, HOUR) == pytest.approx(0.05, rel=0.1)  # half and half


def test_an_hour_never_seen_takes_after_its_neighbours() -> None:
    morning = MONDAY + 9 * HOUR
    times = every(10, morning, morning + HOUR)
    history = Arrivals(until=MONDAY).observed(times, morning + HOUR)
    calm = replace(history, recent=0.0)
    assert calm.rate(morning + HOUR, HOUR) == pytest.approx(0.1, rel=0.2)
    assert calm.rate(morning + 4 * HOUR, HOUR) == pytest.approx(0.01, rel=0.2)  # the mean of all


def test_weeks_weigh_less_the_older_they_are() -> None:
    busy = every(36, 9 * HOUR, 10 * HOUR)
    history, nine = weeks(4, busy), MONDAY + 4 * WEEK + 9 * HOUR
    before = history.rate(nine, HOUR)
    calm = [history := history.observed([], history.until + WEEK) for _ in range(4)][-1]
    after = calm.rate(nine + 4 * WEEK, HOUR)
    # Half of the weeks, and two half-lives old.
    assert 4 * WEEK == 2 * HALF_LIFE
    assert after / before == pytest.approx(1 / 5, rel=0.05)


def test_the_current_hour_counts_by_the_part_that_is_over() -> None:
    quarter = MONDAY + 9.25 * HOUR
    history = weeks(1, []).observed([], MONDAY + WEEK + 9 * HOUR)
    now = quarter + WEEK
    history = history.observed(every(10, now - HOUR / 4, now), now)
    assert sum(history.seconds[9:10]) == pytest.approx(HOUR / 2**0.5 + HOUR / 4, rel=0.01)
    assert history.counts[9] == pytest.approx(90, rel=0.01)


def test_an_arrival_in_the_first_second_tells_little() -> None:
    history = Arrivals(until=MONDAY).observed([MONDAY], MONDAY + 1)
    assert 0 < history.rate(MONDAY + 1, 60) < 1 / 200


def test_a_burst_raises_the_rate_and_fades() -> None:
    history = weeks(4, every(600, 0, WEEK))
    start = history.until
    usual = history.rate(start, 60)
    calm = history.observed(every(600, start, start + HOUR / 2), start + HOUR / 2)
    burst = history.observed(every(10, start, start + HOUR / 2), start + HOUR / 2)
    now = burst.until
    assert calm.rate(now, 60) == pytest.approx(usual, rel=0.3)
    assert burst.rate(now, 60) > 0.06 > 30 * usual
    assert burst.rate(now + HOUR, 60) < burst.rate(now, 60) / 5
    assert burst.rate(now, HOUR) < burst.rate(now, 60)
    assert burst.rate(now + 3 * HOUR, 60) == pytest.approx(usual, rel=0.1)


def test_the_end_of_each_mornings_rush_is_no_burst() -> None:
    rush = every(10, 8 * HOUR, 9 * HOUR)
    nine = MONDAY + 4 * WEEK + 9 * HOUR
    history = weeks(4, rush).observed([MONDAY + 4 * WEEK + at for at in rush], nine)
    assert history.rate(nine, 60) < 0.012


def test_a_clock_that_went_back_changes_nothing() -> None:
    history = weeks(1, [5.0])
    assert history.observed([MONDAY + 5], MONDAY + 60) is history
    with pytest.raises(ValueError, match="until"):
        history.observed([], math.inf)


def test_hours_begin_with_monday() -> None:
    history = Arrivals(until=MONDAY).observed([MONDAY, MONDAY + WEEK - 1], MONDAY + WEEK)
    assert [hour for hour, count in enumerate(history.counts) if count] == [0, HOURS_OF_WEEK - 1]


def test_builds_that_come_by_themselves_are_no_batch() -> None:
    times = arrivals.poisson(30, seed=1, start=MONDAY, seconds=WEEK)
    assert Arrivals(until=MONDAY).observed(times, MONDAY + WEEK).batch() == pytest.approx(
        1, abs=0.1
    )


@pytest.mark.parametrize("size", [2, 6, 20])
def test_a_matrix_of_jobs_is_a_batch(size: int) -> None:
    times = arrivals.bursts(2, size, seed=2, within=30, start=MONDAY, seconds=WEEK)
    history = Arrivals(until=MONDAY).observed(times, MONDAY + WEEK)
    assert history.batch() == pytest.approx(size, rel=0.1)


def test_what_an_older_version_stored_has_no_batches() -> None:
    stored = weeks(1, every(600, 0, WEEK)).dump()
    del stored["near"], stored["latest"]
    assert Arrivals.load(stored).batch() == 1
