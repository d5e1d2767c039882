"""`vmrunner github serve` in a world that fails: one VM a job and never more than may be, whatever
crashes, is told twice, is taken back or is away; and what GitHub says neither ends nor keeps a
VM."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.crash_points import at_point
from tests.faults.github_side import ForgeProcess, GithubWorld
from tests.support.fake_github import Answer
from vmrunner.integrations.github.errors import GithubError
from vmrunner.integrations.github.listener import explanation
from vmrunner.integrations.github.runners import NUMBER, RUNNER, SET
from vmrunner.model import Death, Reason, Result

MakeWorld = Callable[..., GithubWorld]
DAY = 86_400.0
ALL = os.environ.get("VMRUNNER_FAULTS") == "all"


@pytest.fixture
def make_world(make_github: MakeWorld) -> MakeWorld:
    return make_github


def serving(world: GithubWorld, **options: Any) -> ForgeProcess:
    """A scale set that listens, and an engine."""
    world.node()
    process = world.forge(**options)
    world.run(10, until=lambda: process.state.jobs.news is not None)
    return process


def outcome(world: GithubWorld, jobs: int) -> None:
    """Each job is done, by a VM that nobody else had, and nothing is left."""
    world.run(400, until=world.all_done)
    done = [job for job in world.github.jobs.values() if job.result == "succeeded"]
    assert len(done) == jobs, world.github.jobs
    world.settle()


# --- crashes -------------------------------------------------------------------------------------


def begun(world: GithubWorld, *, crash_at: int | None = None) -> ForgeProcess:
    """Three jobs, of which two may run at once."""
    world.node()
    process = world.forge(crash_at=crash_at)
    world.when(lambda: bool(world.github.sessions), lambda: world.github.queue_jobs(3))
    return process


def test_a_crash_at_any_effect_starts_no_second_vm(make_world: MakeWorld) -> None:
    """At each fourth; with VMRUNNER_FAULTS=all at each."""
    world = make_world()
    whole = begun(world)
    world.run(20)
    outcome(world, 3)
    assert len(world.builds()) == 3
    for number, point in [*enumerate(whole.points)][:: 1 if ALL else 4]:
        with at_point(point):
            world = make_world()
            process = begun(world, crash_at=number)
            world.run(200, until=lambda process=process: process.dead)
            assert process.dead
            world.forge()
            world.run(100, until=lambda world=world: len(world.github.jobs) == 3)
            outcome(world, 3)
            assert len(world.builds()) == 3
            world.close()


def test_two_at_once_start_one_vm_for_a_job(make_world: MakeWorld) -> None:
    """GitHub took the first for dead, and it was not: both have looked before either starts."""
    world = make_world()
    first = serving(world)
    second = world.forge()
    stale = second.scaler._builds.seen()
    world.github.queue_job()
    world.run(10, until=lambda: bool(world.builds()))
    second.state.jobs = first.state.jobs
    second.scaler._builds.seen = lambda: stale  # type: ignore[method-assign]
    second.scaler.look()
    assert len(world.github.runners) == 1  # the other is withdrawn
    second.kill()
    outcome(world, 1)
    assert len(world.builds()) == 1


def test_a_second_process_waits_for_the_session(make_world: MakeWorld) -> None:
    world = make_world()
    first = serving(world)
    second = world.forge()
    world.run(60)
    assert second.state.jobs.news is None
    assert {type(error) for error in second.failures} == {GithubError}
    assert "another process hears" in explanation(second.failures[0], "fast")
    first.kill()
    world.run(120, until=lambda: second.state.jobs.news is not None)
    world.github.queue_job()
    outcome(world, 1)


def test_counts_are_forgotten_once_another_hears_them(make_world: MakeWorld) -> None:
    """GitHub took the first for dead. What it heard last would let the second's runners go."""
    world = make_world()
    first = serving(world, idle=0)
    second = world.forge()
    world.run(5, until=lambda: second.state.jobs.scale_set is not None)
    world.github.end_sessions()
    second.listener.step()
    assert second.state.jobs.news is not None
    world.run(5)
    world.arrives = False  # its runner is up, and GitHub has not given it its job yet
    job = world.github.queue_job()
    world.run(30, until=lambda: bool(world.running()))
    world.run(10)
    assert not world.github.paths("pools/0/agents")
    assert first.state.jobs.news is None
    world.arrives = True
    outcome(world, 1)
    assert job.assigned == 1


@pytest.mark.parametrize("number", ["many", "9" * 250, "²"])
def test_a_label_of_somebody_else_stops_no_scale_set(make_world: MakeWorld, number: str) -> None:
    world = make_world()
    process = serving(world)
    labels = {SET: process.scaler._builds._word, NUMBER: number, RUNNER: "x"}
    world.submit(labels=labels)
    world.github.queue_job()
    world.run(30, until=lambda: bool(world.github.paths("generatejitconfig")))
    assert world.github.paths("generatejitconfig")
    assert process.failures == []


# --- what is told --------------------------------------------------------------------------------


def test_a_job_cancelled_three_times_costs_one_vm(make_world: MakeWorld) -> None:
    """The runner that it was for takes it when it comes again."""
    world = make_world()
    serving(world)
    world.arrives = False
    job = world.github.queue_job()
    for _ in range(3):
        world.run(10, until=lambda: job.state == "assigned")
        world.github.cancel(job, again=True)
    world.run(10)
    world.arrives = True
    outcome(world, 1)
    assert (job.assigned, len(world.builds())) == (4, 1)


def test_messages_that_come_again_start_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    process = serving(world)
    world.github.acknowledges = False
    jobs = [world.github.queue_job() for _ in range(2)]
    world.run(30, until=lambda: all(job.state == "running" for job in jobs))
    process.kill()
    world.forge()  # hears all of it anew
    outcome(world, 2)
    assert len(world.builds()) == 2


@pytest.mark.parametrize("what", ["expire_session", "end_sessions", "revoke_service_tokens"])
def test_a_session_or_token_that_ends_is_renewed(make_world: MakeWorld, what: str) -> None:
    world = make_world()
    process = serving(world)
    getattr(world.github, what)()
    world.github.queue_job()
    outcome(world, 1)
    assert process.failures == []


def test_an_offer_that_is_refused_keeps_no_job_behind_it(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    process = serving(world)
    acquire = world.github._acquire

    def answer(*args: Any) -> Answer:
        return Answer(422, {"message": "no"}) if refused.id in args[2] else acquire(*args)

    monkeypatch.setattr(world.github, "_acquire", answer)
    refused, job = world.github.queue_jobs(2)
    first, second = world.github.messages  # one message may have many offers
    first["body"] = json.dumps([*json.loads(first["body"]), *json.loads(second["body"])])
    world.github.messages.remove(second)
    world.run(30, until=lambda: job.state == "completed")
    assert (job.state, refused.state) == ("completed", "available")
    assert process.failures == []


def test_a_limit_is_waited_out(make_world: MakeWorld) -> None:
    world = make_world()
    process = serving(world)
    limit = Answer(403, {"message": "secondary rate limit"}, {"retry-after": "30"})
    world.github.next("generatejitconfig", limit)
    world.github.queue_job()
    world.run(10, until=lambda: bool(process.failures))
    count, at = len(world.github.paths("generatejitconfig")), world.clock()
    world.run(28)
    assert len(world.github.paths("generatejitconfig")) == count
    world.run(10, until=lambda: len(world.github.paths("generatejitconfig")) > count)
    assert world.clock() - at >= 28
    outcome(world, 1)


def test_a_scale_set_that_somebody_deleted_is_made_anew(make_world: MakeWorld) -> None:
    world = make_world()
    serving(world)
    before = set(world.github.sets)
    world.github.delete_scale_set()
    world.run(60, until=lambda: bool(world.github.sets))
    assert set(world.github.sets) != before
    world.github.queue_job()
    outcome(world, 1)


def test_jobs_wait_while_github_is_away(make_world: MakeWorld) -> None:
    world = make_world()
    serving(world)
    world.github.queue_job()
    world.run(5, until=lambda: bool(world.running()))
    world.github.down = True
    world.run(60)
    (build,) = world.builds()
    assert not build.finished
    world.github.down = False
    world.github.queue_job()
    outcome(world, 2)
    assert len(world.builds()) == 2


@pytest.mark.parametrize("skew", [0.0, -DAY])
def test_runners_that_fail_at_once_are_started_ever_later(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, skew: float
) -> None:
    world = make_world()
    world.exit_code = 127
    world.cloud.skew = skew
    serving(world)
    world.github.queue_job()
    world.job_seconds = float("inf")
    world.seconds_of = lambda build: 0.0  # type: ignore[method-assign]
    world.run(300)
    assert 3 <= len(world.builds()) <= 6
    assert {build.exit_code for build in world.builds() if build.finished} == {127}
    assert "the image has no runner where the command looks for it" in caplog.text


@pytest.mark.parametrize("code", [0, 127])
def test_an_end_that_is_dated_tomorrow_holds_up_no_job(make_world: MakeWorld, code: int) -> None:
    """The cloud's clock is ahead of ours. The first runner has its job or fails without."""
    world = make_world()
    world.cloud.skew = DAY
    process = serving(world)
    world.exit_code = code
    work = world.seconds_of
    if code:
        world.seconds_of = lambda build: 0.0  # type: ignore[method-assign]
    first = world.github.queue_job()
    world.run(60, until=lambda: bool(world.builds()) and world.builds()[0].finished)
    world.seconds_of = work  # type: ignore[method-assign]
    world.exit_code = 0
    second = world.github.queue_job()
    world.run(60, until=lambda: second.state == "completed")
    assert (first.result, second.result) == ("succeeded", "succeeded")
    process.kill()
    world.forge()
    world.github.queue_job()
    outcome(world, 3)


def test_a_runner_that_ends_before_the_first_look_counts(make_world: MakeWorld) -> None:
    """A process that comes anew has the count from before that end."""
    world = make_world()
    first = serving(world)
    job = world.github.queue_job()
    world.run(30, until=lambda: job.state == "running")
    first.kill()
    world.github.end_sessions()
    second = world.forge()
    look, second.scaler.look = second.scaler.look, lambda: None  # type: ignore[method-assign]
    world.run(60, until=lambda: second.state.jobs.news is not None)
    second.listener.step = lambda: False  # type: ignore[method-assign]
    assert second.state.jobs.news is not None
    assert second.state.jobs.news.assigned == 1
    world.run(60, until=lambda: world.builds()[0].finished)
    look()
    assert len(world.builds()) == 1


# --- life and death ------------------------------------------------------------------------------


def test_a_runner_that_github_forgot_is_not_ended(make_world: MakeWorld) -> None:
    """Its absence is no death, not for a process that knows of no job either: it may have one that
    GitHub does not show."""
    world = make_world()
    process = serving(world)
    job = world.github.queue_job()
    world.run(30, until=lambda: job.state == "running")
    world.seconds_of = lambda build: 60.0  # type: ignore[method-assign]  # it works on
    process.kill()
    world.github.runners.clear()
    world.github.jobs.clear()
    world.github.end_sessions()
    process = world.forge(idle=0)
    world.run(20)
    assert process.state.jobs.news is not None
    assert world.github.paths("pools/0/agents")
    (build,) = world.builds()
    assert (build.finished, build.cancel) == (False, None)
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS


def test_a_job_that_goes_on_keeps_no_vm(make_world: MakeWorld) -> None:
    """GitHub's wish is no veto past the deadline, nor is that of a dead process."""
    world = make_world()
    process = serving(world)
    world.job_seconds = float("inf")
    job = world.github.queue_job()
    world.run(30, until=lambda: job.state == "running")
    process.kill()
    world.settle()
    (build,) = world.builds()
    assert job.state == "running"
    assert (build.result, build.reason) == (Result.TIMEOUT, Reason.DEADLINE)


def test_a_runner_that_no_job_wants_leaves(make_world: MakeWorld) -> None:
    world = make_world()
    serving(world, idle=20)
    job = world.github.queue_job()
    world.run(10, until=lambda: bool(world.builds()))
    world.github.cancel(job)
    world.run(30, until=lambda: bool(world.running()))
    world.run(15)
    assert len(world.running()) == 1
    world.run(15, until=lambda: not world.running())
    (build,) = world.builds()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    (row,) = world.truth.instances.list(build=build.id)
    assert row.death is Death.DONE


def test_a_runner_leaves_though_the_clock_is_set_back(make_world: MakeWorld) -> None:
    world = make_world()
    process = serving(world, idle=20)
    job = world.github.queue_job()
    world.run(10, until=lambda: bool(world.builds()))
    world.github.cancel(job)
    world.run(30, until=lambda: bool(world.running()))
    world.run(5)
    process.host.skew = -DAY
    world.run(40, until=lambda: not world.running())
    assert not world.running()


def test_a_runner_with_a_job_is_not_dismissed(make_world: MakeWorld) -> None:
    """Of a process that was started anew, and knows of no job."""
    world = make_world()
    process = serving(world, idle=0)
    world.job_seconds = 30.0
    job = world.github.queue_job()
    world.run(30, until=lambda: job.state == "running")
    process.kill()
    world.github.end_sessions()
    process = world.forge(idle=0)
    world.github.statistics = lambda _: {"totalAssignedJobs": 0}  # type: ignore[method-assign]
    world.run(10, until=lambda: bool(world.github.paths("pools/0/agents/")))
    assert world.github.paths("pools/0/agents/")
    outcome(world, 1)
