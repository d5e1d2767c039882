"""A primary that dies at a commit, and its standby that takes its place. A first run counts the
commits of a scenario's process. Every change tries a sample, done or not; `make soak` tries each,
both ways. Beside them those that a seed draws, as `bench/faults.py --failovers` does."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crash_points import at_point, finish_elsewhere
from tests.faults.failover_side import CommitFate, Servers, Speaker
from tests.faults.scenarios import SCENARIOS, Scenario, begin
from tests.faults.world import TTL, World
from vmrunner.model import BuildRecord

Make = Callable[..., World]
ROOT = Path(__file__).parents[2]
SAMPLE = 25  # one in so many

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Every failure would be logged with its traceback: that takes longer than all else."""
    caplog.set_level(logging.CRITICAL + 1, "vmrunner")


def served(make_world: Make, scenario: Scenario) -> tuple[World, Servers, BuildRecord]:
    """A world whose process is about to begin."""
    world = make_world(served=True)
    build, _ = begin(world, scenario)
    servers = world.servers
    assert servers is not None
    servers.commits.clear()
    # Away until a VM's deadline, its build's verdict is lost.
    servers.window = 3.0 if scenario.name == "deadline" else 7.0
    return world, servers, build


def commit_places(make_world: Make, scenario: Scenario) -> list[str]:
    """Every commit of this scenario's process at which the primary can die."""
    world, servers, _ = served(make_world, scenario)
    world.run(TTL + 100, until=world.quiet)
    world.close()
    return servers.commits


def fail_over(
    make_world: Make, scenario: Scenario, at: int, fate: CommitFate, window: float | None = None
) -> None:
    """The same process goes on, and later another with it; all is as if nothing had been."""
    world, servers, build = served(make_world, scenario)
    servers.window = servers.window if window is None else window
    servers.reads = at % 3 == 0

    def judge(_of: Speaker) -> CommitFate | None:
        return fate if len(servers.commits) == at + 1 else None

    servers.judge = judge
    world.run(TTL + 100, until=world.quiet)
    assert servers.number == 2
    finish_elsewhere(world, scenario, build)
    shutil.rmtree(world.root)
    world.root.mkdir()


@each_scenario
def test_a_failover_at_some_commits_changes_nothing(make_world: Make, scenario: Scenario) -> None:
    turn = SCENARIOS.index(scenario)
    for at, place in enumerate(commit_places(make_world, scenario)):
        if (at + turn) % SAMPLE == 0:
            fate = list(CommitFate)[(at + turn) // SAMPLE % 2]
            with at_point(f"commit {at}, {place}, {fate}"):
                fail_over(make_world, scenario, at, fate)


@pytest.mark.parametrize("fate", CommitFate)
@pytest.mark.parametrize("what", ["instances.start", "logs.append", "builds.finish_all"])
def test_who_is_not_answered_takes_nothing_for_granted(
    make_world: Make, what: str, fate: CommitFate
) -> None:
    """A VM is asked for, a log is told, a build ends; another server answers at once."""
    run = SCENARIOS[0]
    (at,) = (n for n, at in enumerate(commit_places(make_world, run)) if at == f"before {what}")
    fail_over(make_world, run, at, fate, window=0.0)


def test_no_build_has_a_vm_that_its_owner_gave_up(make_world: Make) -> None:
    """A guest hangs and is lost: whatever dies about then, its VM is deleted as nobody's."""
    hung = next(scenario for scenario in SCENARIOS if scenario.name == "retry_hung")
    commits = commit_places(make_world, hung)
    retried = next(n for n, commit in enumerate(commits) if commit.endswith("builds.retry"))
    for at in range(retried - 2, retried + 3):
        with at_point(f"commit {at}, {commits[at]}"):
            fail_over(make_world, hung, at, CommitFate.DONE, window=60.0)


def play(builds: int, seed: int) -> str:
    """What `bench/faults.py` tells of that many."""
    command = [sys.executable, "bench/faults.py", "--failovers", "--builds", f"{builds}"]
    played = subprocess.run(
        [*command, "--seed", f"{seed}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    assert played.stdout.splitlines()[-1] == "survivors=0 murders=0 doubles=0 forgotten=0"
    return played.stdout


def test_failovers_in_a_hostile_world() -> None:
    output = play(150, 20261125)
    for what in (
        "failovers amid commits done",
        "failovers amid commits undone",
        "failovers between commits",
        "failovers to a standby that lags",
        "rows that a standby lacked",
    ):
        assert f" {what}" in output


@pytest.mark.long
def test_many_failovers_in_a_hostile_world() -> None:
    play(3000, 20261128)


@pytest.mark.long
@each_scenario
def test_a_failover_at_any_commit_changes_nothing(make_world: Make, scenario: Scenario) -> None:
    for at, place in enumerate(commit_places(make_world, scenario)):
        for fate in CommitFate:
            with at_point(f"commit {at}, {place}, {fate}"):
                fail_over(make_world, scenario, at, fate)
