"""How many runners a scale set needs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ledger_builds import spec
from vmrunner.integrations.github import plan
from vmrunner.integrations.github.plan import JobNews, RunnersSeen
from vmrunner.model import BuildRecord, BuildState, Result

NOW = 1000.0


def build(number: int, **changes: Any) -> BuildRecord:
    values = {"state": BuildState.RUNNING, "created_at": 0.0, "state_since": 0.0, **changes}
    return BuildRecord(id=f"b-{number}", spec=spec(), **values)


def ended(number: int, result: Result, at: float) -> BuildRecord:
    return build(number, state=BuildState.FINISHED, result=result, finished_at=at)


def starts(seen: RunnersSeen, assigned: int, **changes: Any) -> int:
    values = {"usable": len(seen.live), "most": 5, "jobless": (), "now": NOW, **changes}
    return plan.starts(seen, JobNews(assigned=assigned, told_at=900.0), **values)


LIVE = tuple(build(number) for number in range(2))


@pytest.mark.parametrize(
    ("seen", "assigned", "changes", "count"),
    [
        (RunnersSeen(live=(), ended=()), 0, {}, 0),
        (RunnersSeen(live=(), ended=()), 3, {}, 3),
        (RunnersSeen(live=(), ended=()), 9, {}, 5),
        (RunnersSeen(live=LIVE, ended=()), 3, {}, 1),
        (RunnersSeen(live=LIVE, ended=()), 1, {}, 0),
        (RunnersSeen(live=LIVE, ended=()), 3, {"usable": 0}, 3),
        (RunnersSeen(live=LIVE, ended=()), 9, {"usable": 0}, 3),
        (RunnersSeen(live=LIVE, ended=(), unread=2), 9, {}, 1),
        (RunnersSeen(live=(), ended=(), unread=9), 9, {}, 0),
        (RunnersSeen(live=(), ended=(ended(1, Result.SUCCESS, 950.0),)), 1, {}, 0),
        (RunnersSeen(live=(), ended=(ended(1, Result.SUCCESS, 850.0),)), 1, {}, 1),
        (RunnersSeen(live=(), ended=(ended(1, Result.CANCELLED, 950.0),)), 1, {}, 1),
        (
            RunnersSeen(live=(), ended=(ended(1, Result.SUCCESS, 950.0),)),
            1,
            {"jobless": ("b-1",)},
            1,
        ),
        (RunnersSeen(live=(), ended=(ended(1, Result.FAILURE, 995.0),)), 1, {}, 0),
        (RunnersSeen(live=(), ended=(ended(1, Result.FAILURE, 989.0),)), 1, {}, 1),
    ],
)
def test_as_many_as_jobs_and_never_more_than_may_be(
    seen: RunnersSeen, assigned: int, changes: dict[str, Any], count: int
) -> None:
    assert starts(seen, assigned, **changes) == count


def test_failures_in_a_row_are_followed_ever_later() -> None:
    rows = [ended(n, Result.ERROR, NOW - n) for n in range(12)]
    waits = [plan.resume_at(rows[:n], ()) - NOW for n in range(1, 12)]
    assert waits[:4] == [10.0, 20.0, 40.0, 80.0]
    assert waits[-1] == 600.0
    well = ended(99, Result.TIMEOUT, NOW)
    assert plan.resume_at([rows[0], well, *rows[1:]], ()) == NOW + 10.0
    assert plan.resume_at([well, *rows], ()) == 0.0


def test_the_oldest_idle_runner_is_the_one_to_go() -> None:
    live = [build(n) for n in range(4)] + [build(4, state=BuildState.BOOTING)]
    usable = {row.id for row in live} - {"b-0"}
    news = JobNews(assigned=2, told_at=0.0)
    found = plan.surplus(live, news, usable=usable, busy={"b-1"})
    assert [row.id for row in found] == ["b-2", "b-3"]
