"""When a cron line fires, and which lines are refused."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from vmrunner.errors import ConfigError
from vmrunner.runtime.cron_jobs import CronJobs, CronLineTrigger

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
    message = str(caught.value)
    assert message.startswith(f"reaper.sweep: {line!r}: ")
    assert word in message
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


class Clocks:
    wall, monotonic = 1_900_000_000.0, 0.0

    def jobs(self, line: str, work: Callable[[], object]) -> CronJobs:
        jobs = CronJobs(lambda: self.wall, lambda: self.monotonic)
        jobs.set("sweep", line, "reaper.sweep", work)
        jobs.start()
        return jobs

    def wait(self, jobs: CronJobs) -> float:
        due = jobs._scheduler.get_job("sweep").next_run_time.timestamp()
        return float(due - self.wall)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """The wall clock that the scheduler goes by, and the monotonic one."""
    found = Clocks()

    class Told(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromtimestamp(found.wall, tz)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Told)
    return found


def test_a_clock_set_back_makes_no_job_wait(clocks: Clocks) -> None:
    fired = threading.Event()
    jobs = clocks.jobs("*/5 * * * *", fired.set)
    for _ in range(2):
        clocks.wall -= 3600.0
        assert clocks.wait(jobs) > 3000.0
        jobs.look()
        assert clocks.wait(jobs) <= 300.0
    clocks.wall, clocks.monotonic = clocks.wall + 301.0, 301.0
    jobs.look()
    assert fired.wait(30)
    jobs.stop()


def test_a_clock_set_forward_lets_pass_no_job(clocks: Clocks) -> None:
    """The one that it passed over is done."""
    fired = threading.Event()
    jobs = clocks.jobs("7 3 * * *", fired.set)
    clocks.wall += 86_400.0
    jobs.look()
    assert fired.wait(30)
    jobs.set("sweep", "0 0 29 2 *", "reaper.sweep", fired.set)
    assert clocks.wait(jobs) > 86_400.0
    jobs.stop()
