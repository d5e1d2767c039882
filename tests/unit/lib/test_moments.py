"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vmrunner.errors import ConfigError
from vmrunner.lib.moments import moment

NOW = 1_800_000_000.0
AT = datetime(2026, 11, 30, 8, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("24h", NOW - 86_400),
        ("90", NOW - 90),
        (90, NOW - 90),
        (timedelta(minutes=1), NOW - 60),
        ("0s", NOW),
        ("2026-11-30T08:00:00Z", AT),
        ("2026-11-30t08:00:00z", AT),
        ("2026-11-30 08:00Z", AT),
        ("2026-11-30T09:00:00+01:00", AT),
        ("2026-11-30T09:00:00 01:00", AT),  # the + of a query that was not escaped
        ("2026-11-30T03:00:00.500-05:00", AT + 0.5),
        ("2026-11-30", AT - 8 * 3600),
        ("1969-01-01", 0.0),
        (datetime(2026, 11, 30, 9, tzinfo=timezone(timedelta(hours=1))), AT),
    ],
)
def test_a_time_or_so_long_ago(value: object, at: float) -> None:
    assert moment(value, "since", NOW) == pytest.approx(at)


@pytest.mark.parametrize(
    "value",
    [
        "", "yesterday", "2026-11-30T08:00:00", "2026-02-30", "2026-11-30T25:00:00Z", "-1h", "nan",
        "1764547200", 1764547200, True, None, "٢٠٢٦-11-30", "2026-11-30Z", "1h " * 100,
        datetime(2026, 11, 30),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_with_the_fix(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^since: .+ \(.+\)$"):
        moment(value, "since", NOW)
