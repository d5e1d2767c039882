"""When a cron line fires, and which lines are refused."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from vmrunner.errors import ConfigError
from vmrunner.runtime.cron_jobs import CronLineTrigger

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "not a cron line"),
        ("@hourly", "not a cron line"),
        ("* * * * * *", "not a cron line"),
        ("60 * * * *", "minute '60' is not within 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of the month '0'"),
        ("* * L * *", "day of the month 'L'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of the week '8'"),
        ("* * * * mon#1", "day of the week 'mon#1'"),
        ("* * * * 5L/2", "day of the week '5L/2'"),
        ("*/0 * * * *", "minute '*/0'"),
        ("0 0 30 2 *", "day of the month '30' of month '2' never comes"),
        ("0 0 31 4,6,sep,11 *", "never comes"),
        ("* * * * fri-mon", "day of the week 'fri-mon'"),
        ("a * * * *", "minute 'a'"),
        ("1,,2 * * * *", "minute '1,,2'"),
        ("-1 * * * *", "minute '-1'"),
        ("*-3 * * * *", "minute '*-3'"),
        ("\u0663 * * * *", "minute '\u0663'"),
        (f"{'1' * 5000} * * * *", "minute '111"),
    ],
)
def test_a_bad_line_is_told_with_field_and_fix(line: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CronLineTrigger(line, "reaper.sweep")
    told = str(caught.value)
    assert told.startswith(f"reaper.sweep: {line!r}: ")
    assert word in told
    assert caught.value.hint


@pytest.mark.parametrize(
    ("line", "after", "first"),
    [
        ("*/5 * * * *", "2026-11-25 10:03", "2026-11-25 10:05"),
        ("*/5 * * * *", "2026-11-25 10:05", "2026-11-25 10:10"),
        ("5/20 0 1 Jan *", "2026-11-25 10:03", "2027-01-01 00:05"),
        ("0 8-17/3,22 * * mon-fri", "2026-11-27 17:30", "2026-11-27 22:00"),
        ("0 8-17/3,22 * * mon-fri", "2026-11-27 22:30", "2026-11-30 08:00"),
        # Sunday is 0 and 7 for cron; the scheduler would take 0 for Monday.
        ("0 3 * * 0", "2026-11-25 10:03", "2026-11-29 03:00"),
        ("0 3 * * 7", "2026-11-25 10:03", "2026-11-29 03:00"),
        ("0 3 * * sun", "2026-11-25 10:03", "2026-11-29 03:00"),
        # Either day is enough for cron; the scheduler would wait until both fit.
        ("0 3 27 * sun", "2026-11-25 10:03", "2026-11-27 03:00"),
        ("0 3 27 * sun", "2026-11-27 10:03", "2026-11-29 03:00"),
        ("0 0 30 2 mon", "2026-11-25 10:03", "2027-02-01 00:00"),
        # Unless one of them begins with a star: then both must fit.
        ("0 3 */7 * sun", "2026-11-25 10:03", "2026-11-29 03:00"),
        ("0 3 */7 * sun", "2026-11-29 10:03", "2027-08-01 03:00"),
        ("0 3 13 * */5", "2026-11-25 10:03", "2026-12-13 03:00"),
        # 2:30 does not exist on the day on which clocks go forward, and comes once in autumn.
        ("30 2 * * *", "2027-03-28 00:00", "2027-03-28 03:00"),
        ("30 2 * * *", "2026-10-25 02:40", "2026-10-26 02:30"),
    ],
)
def test_it_fires_when_cron_would(line: str, after: str, first: str) -> None:
    now = datetime.datetime.fromisoformat(after).replace(tzinfo=BERLIN)
    fires = CronLineTrigger(line, "reaper.sweep").get_next_fire_time(None, now)
    assert fires is not None
    assert fires.strftime("%Y-%m-%d %H:%M") == first
    assert fires.tzinfo is BERLIN
