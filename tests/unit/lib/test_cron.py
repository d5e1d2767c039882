from __future__ import annotations

import datetime

import pytest

from vmrunner.daemon.daemon import _trigger
from vmrunner.lib.cron import parse


def test_each_field_as_cron_reads_it() -> None:
    cron = parse("*/20 8-17/3,22 * Jan,mar mon-fri")
    assert cron.minutes == (0, 20, 40)
    assert cron.hours == (8, 11, 14, 17, 22)
    assert cron.days is None
    assert cron.months == (1, 3)
    assert cron.weekdays == (1, 2, 3, 4, 5)
    assert parse("0 0 29 2 *").days == (29,)
    assert parse("0 0 30 2 mon").weekdays == (1,)  # either day is enough
    assert parse("5/20 0 1 1 7").minutes == (5, 25, 45)
    assert parse("0 0 1 1 7").weekdays == parse("0 0 1 1 sun").weekdays == (0,)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "not a cron line"),
        ("@hourly", "not a cron line"),
        ("* * * * * *", "not a cron line"),
        ("60 * * * *", "minute '60' is not within 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of the month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of the week '8'"),
        ("*/0 * * * *", "names no time"),
        ("0 0 30 2 *", "day '30' of month '2' never comes"),
        ("0 0 31 4,6,sep,11 *", "never comes"),
        ("* * * * fri-mon", "names no time"),
        ("a * * * *", "minute 'a'"),
        ("1,,2 * * * *", "cannot be read"),
        ("-1 * * * *", "cannot be read"),
        ("*-3 * * * *", "cannot be read"),
        ("\u0663 * * * *", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(line)


@pytest.mark.parametrize(
    ("line", "after", "next_one"),
    [
        ("*/5 * * * *", "2026-11-25 10:03", "2026-11-25 10:05"),
        # Sunday is 0 for cron; the library would take 0 for Monday.
        ("0 3 * * 0", "2026-11-25 10:03", "2026-11-29 03:00"),
        ("0 3 * * sun", "2026-11-25 10:03", "2026-11-29 03:00"),
        # Either day is enough for cron; the library would wait until both fit.
        ("0 3 27 * sun", "2026-11-25 10:03", "2026-11-27 03:00"),
        ("0 3 27 * sun", "2026-11-27 10:03", "2026-11-29 03:00"),
    ],
)
def test_it_fires_when_cron_would(line: str, after: str, next_one: str) -> None:
    trigger = _trigger(line)
    zone = trigger.triggers[0].timezone
    now = datetime.datetime.fromisoformat(after).replace(tzinfo=zone)
    fires = trigger.get_next_fire_time(None, now)
    assert fires.strftime("%Y-%m-%d %H:%M") == next_one
