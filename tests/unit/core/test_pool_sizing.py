"""How many VMs a pool should hold. What Poisson gives is held against known base stocks, and
against sums of exact fractions."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrunner.core.pool_sizing import (
    DEFAULT_LEAD_TIME,
    affordable_size,
    demanded_size,
    scheduled_size,
)
from vmrunner.errors import ConfigError

HOUR, DAY = 3600.0, 86400.0
#: A Monday, 00:00 UTC.
MONDAY = datetime(2026, 11, 2, tzinfo=UTC).timestamp()

# --- by schedule ---

OFFICE = [("0 8 * * 1-5", 8), ("0 18 * * 1-5", 2)]
LINES = ["0 8 * * 1-5", "30 18 * * 5", "*/20 * * * *", "0 0 1 * *", "5 3 15 */2 *", "0 12 * * 0"]


@pytest.mark.parametrize(
    ("hours", "size"),
    [
        (8, 8),  # from the second on at which it fires
        (8 - 1 / HOUR, 2),
        (8 + 0.1 / HOUR, 8),
        (17.99, 8),
        (18, 2),
        (24 + 7, 2),
        (6 * 24 + 12, 2),  # Sunday: Friday's last
    ],
)
def test_the_entry_that_fired_last_counts(hours: float, size: int) -> None:
    assert scheduled_size(OFFICE, MONDAY + hours * HOUR) == size
    assert scheduled_size(OFFICE[::-1], MONDAY + hours * HOUR) == size


def test_of_two_that_fired_together_the_later_counts() -> None:
    assert scheduled_size([("0 8 * * *", 3), ("0 8 * * 1", 5)], MONDAY + 9 * HOUR) == 5
    assert scheduled_size([("0 8 * * 1", 5), ("0 8 * * *", 3)], MONDAY + 9 * HOUR) == 3


def test_an_entry_holds_until_the_next_fires() -> None:
    monthly = [("0 0 15 * *", 2), ("0 0 1 * *", 8)]
    assert scheduled_size(monthly, datetime(2026, 11, 30, tzinfo=UTC).timestamp()) == 2
    assert scheduled_size(monthly, datetime(2026, 11, 14, tzinfo=UTC).timestamp()) == 8
    leap_day = [("0 0 29 2 *", 4), ("0 0 1 3 *", 1)]
    assert scheduled_size(leap_day, MONDAY) == 1
    assert scheduled_size(leap_day[:1], MONDAY) == 4  # of 2024


def test_a_line_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"schedule: '0 25 \* \* \*': hour '25'"):
        scheduled_size([*OFFICE, ("0 25 * * *", 1)], MONDAY)
    with pytest.raises(ConfigError, match="schedule: no entry"):
        scheduled_size([], MONDAY)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=4), st.floats(0, 60 * DAY))
def test_it_is_what_firing_forward_leaves(lines: list[str], after: float) -> None:
    now = datetime.fromtimestamp(int(MONDAY + after), UTC)
    fired = []
    for number, line in enumerate(lines):
        times = CronSim(line, now - timedelta(days=63))
        while (at := next(times)) <= now:
            fired.append((at, number))
    expected = max(fired)[1]
    assert scheduled_size([(line, n) for n, line in enumerate(lines)], now.timestamp()) == expected


# --- by demand ---

RATES = st.floats(0, 50)
LEADS = st.lists(st.floats(0, 200), max_size=5)
SHARES = st.floats(0, 0.9999)


def hit_rate(size: int, means: Sequence[Fraction]) -> float:
    """The mean of P[Poisson ≤ size − 1] over the means, without logarithms."""
    sums = [
        float(sum(mean**k / math.factorial(k) for k in range(size))) * math.exp(-mean)
        for mean in means
    ]
    return sum(sums) / len(sums)


@pytest.mark.parametrize(
    ("rate", "lead", "s95", "s99"),
    [
        (0.05, 5, 2, 3),
        (0.05, 25, 4, 5),
        (0.05, 60, 7, 9),
        (0.2, 5, 4, 5),
        (0.2, 25, 10, 12),
        (0.2, 60, 19, 22),
        (1, 5, 10, 12),
        (1, 25, 34, 38),
        (1, 60, 74, 80),
    ],
)
def test_known_base_stocks(rate: float, lead: float, s95: int, s99: int) -> None:
    assert demanded_size(rate, [lead], 0.95, 0, 1000) == s95
    assert demanded_size(rate, [lead] * 3, 0.99, 0, 1000) == s99


@settings(deadline=None)
@given(
    st.fractions(Fraction(1, 100), 2, max_denominator=100),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.floats(0.01, 0.999),
)
def test_it_is_the_smallest_size_that_hits(rate: Fraction, leads: list[int], share: float) -> None:
    size = demanded_size(float(rate), leads, share, 0, 10_000)
    means = [rate * lead for lead in leads]
    assert hit_rate(size, means) >= share - 1e-9
    assert hit_rate(size - 1, means) < share + 1e-9


@settings(deadline=None)
@given(RATES, RATES, LEADS, SHARES)
def test_more_builds_never_want_fewer(
    rate: float, other: float, leads: list[float], share: float
) -> None:
    low, high = sorted([rate, other])
    assert demanded_size(low, leads, share, 0, 20_000) <= demanded_size(
        high, leads, share, 0, 20_000
    )


@settings(deadline=None)
@given(RATES, LEADS, SHARES, SHARES)
def test_a_higher_share_never_wants_fewer(
    rate: float, leads: list[float], share: float, other: float
) -> None:
    low, high = sorted([share, other])
    assert demanded_size(rate, leads, low, 0, 20_000) <= demanded_size(rate, leads, high, 0, 20_000)


@settings(deadline=None)
@given(RATES, st.lists(st.tuples(st.floats(0, 200), st.floats(0, 50)), min_size=1), SHARES)
def test_slower_starts_never_want_fewer(
    rate: float, leads: list[tuple[float, float]], share: float
) -> None:
    fast = demanded_size(rate, [lead for lead, _ in leads], share, 0, 20_000)
    assert fast <= demanded_size(rate, [lead + more for lead, more in leads], share, 0, 20_000)


@settings(deadline=None)
@given(RATES, LEADS, st.floats(0, 1), st.integers(0, 50), st.integers(0, 50))
def test_the_bounds_hold(
    rate: float, leads: list[float], share: float, least: int, more: int
) -> None:
    free = demanded_size(rate, leads, share, 0, 20_000)
    bound = demanded_size(rate, leads, share, least, least + more)
    assert bound == (least if rate == 0 else min(max(free, least), least + more))


@pytest.mark.parametrize(("batch", "size"), [(1, 2), (3, 4), (6, 6), (20, 20)])
def test_batches_want_a_vm_for_most_of_their_builds(batch: float, size: int) -> None:
    """Twelve builds an hour, and a minute until a VM is there."""
    assert demanded_size(12 / 3600, [60.0], 0.95, 0, 1000, batch) == size


@settings(deadline=None, max_examples=30)
@given(st.floats(0.001, 0.2), st.floats(1, 60), st.integers(1, 8), st.integers(0, 2**32))
def test_builds_of_batches_find_vms_as_often_as_asked(
    rate: float, lead: float, batch: int, seed: int
) -> None:
    """Base stock, played: each build takes a VM or, without one, the next that comes."""
    size = demanded_size(rate, [lead], 0.9, 0, 10_000, batch)
    chance, at, hits, ordered = random.Random(seed), 0.0, 0, deque[float]()
    for _ in range(2000):
        at += chance.expovariate(rate / batch)
        for _ in range(batch):
            while ordered and ordered[0] <= at - lead:
                ordered.popleft()
            hits += len(ordered) < size
            ordered.append(at)
    assert hits / (2000 * batch) >= 0.9 - 0.05


def test_slow_starts_count_by_share_not_by_mean() -> None:
    often_fast = [5.0] * 9 + [300.0]
    assert demanded_size(0.2, often_fast, 0.95, 0, 100) == 61
    assert demanded_size(0.2, [sum(often_fast) / 10], 0.95, 0, 100) == 12


@pytest.mark.parametrize("mean", [1e3, 1e5, 1e7])
def test_large_rates_follow_the_normal_law(mean: float) -> None:
    size = demanded_size(mean / 10, [10.0], 0.99, 0, 10**9)
    # Cornish and Fisher, to the skewness; 2.326348 is the normal quantile of 0.99.
    z = 2.326347874
    assert size == pytest.approx(mean + z * mean**0.5 + (z * z - 1) / 6 + 0.5, abs=1)


def test_where_no_size_is_enough() -> None:
    assert demanded_size(1e300, [10.0], 0.5, 0, 7) == 7
    assert demanded_size(1.0, [10.0], 1.0, 0, 30) == 30


def test_until_a_start_was_measured_one_is_assumed() -> None:
    assert demanded_size(1, [], 0.95, 0, 100) == demanded_size(1, [DEFAULT_LEAD_TIME], 0.95, 0, 100)


def test_when_nothing_arrives_the_least_is_enough() -> None:
    assert demanded_size(0, [60.0], 0.99, 0, 9) == 0
    assert demanded_size(0, [60.0], 0.99, 2, 9) == 2
    assert demanded_size(1e-9, [60.0], 0.99, 0, 9) == 1


@pytest.mark.parametrize(
    ("rate", "leads", "share", "least", "most"),
    [
        (-1, [], 0.9, 0, 1),
        (math.nan, [], 0.9, 0, 1),
        (math.inf, [1.0], 0.9, 0, 1),
        (1, [-1.0], 0.9, 0, 1),
        (1, [math.nan], 0.9, 0, 1),
        (1, [], 1.1, 0, 1),
        (1, [], math.nan, 0, 1),
        (1, [], 0.9, 2, 1),
        (1, [], 0.9, -1, 1),
    ],
)
def test_what_cannot_be_is_refused(
    rate: float, leads: list[float], share: float, least: int, most: int
) -> None:
    with pytest.raises(ValueError, match="rate"):
        demanded_size(rate, leads, share, least, most)


# --- by money ---

NOON = MONDAY + 12 * HOUR


@pytest.mark.parametrize(
    ("size", "usd_hour", "cap", "spent", "now", "allowed"),
    [
        (20, 0.1, 24, 0, MONDAY, 10),
        (8, 0.1, 24, 0, MONDAY, 8),
        (20, 0.07, 1.68, 0, MONDAY, 1),  # where floats make it a hair less than one
        (20, 0.1, 24, 12, NOON, 10),
        (20, 0.1, 24, 23.9, MONDAY + DAY - 60, 20),
        (20, 0.1, 24, 24, NOON, 0),
        (20, 0.1, 24, 30, NOON, 0),
        (20, 0.1, 0, 0, NOON, 0),
        (20, 0.1, None, 99, NOON, 20),
        (20, 0.0, 24, 99, NOON, 20),
    ],
)
def test_the_cap(
    size: int, usd_hour: float, cap: float | None, spent: float, now: float, allowed: int
) -> None:
    assert affordable_size(size, usd_hour, cap, spent, now) == allowed


MONEY = st.floats(0.001, 500)


@settings(deadline=None)
@given(st.integers(0, 500), MONEY, MONEY, MONEY, st.floats(MONDAY, MONDAY + DAY, exclude_max=True))
def test_idling_until_midnight_stays_within_the_cap_and_uses_it(
    size: int, usd_hour: float, cap: float, spent: float, now: float
) -> None:
    allowed = affordable_size(size, usd_hour, cap, spent, now)
    each = usd_hour * (MONDAY + DAY - now) / HOUR
    assert 0 <= allowed <= size
    assert allowed == 0 or spent + allowed * each <= cap + 1e-6 * each
    assert allowed == size or spent + (allowed + 1) * each > cap
