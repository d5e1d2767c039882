"""The fixed seed that every change must pass; `bench/faults.py` plays the hundred thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.chaos import Episode

ROOT = Path(__file__).parents[2]


def test_six_hundred_builds_in_a_hostile_world() -> None:
    command = [sys.executable, "bench/faults.py", "--builds", "600", "--seed", "20261232"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    last = played.stdout.splitlines()[-1]
    assert last == "survivors=0 murders=0 doubles=0 forgotten=0"
    # What is drawn seldom was drawn.
    for what in (
        "late answers",
        "limits lowered",
        "lost ledgers",
        "providers renamed",
        "jobs done",
        "runners of GARM and jobs of GitLab",
        "hosts that came back",
    ):
        assert f" {what}" in played.stdout


class Grounded(Episode):
    """Short, and each call takes everybody's time."""

    aloft = 0.0
    span = 300.0


class Aloft(Episode):
    """Short, and all of its calls and passes are in the air."""

    aloft = 1.0
    span = 60.0


class Hosted(Episode):
    """Short, and with hosts of local VMs."""

    forges = failovers = 0.0
    hosts = 1.0
    span = 200.0


class Forged(Episode):
    """Short, and with jobs of GitHub."""

    forges = 1.0
    span = 200.0


@pytest.mark.parametrize(
    ("kind", "builds", "befell"),
    [
        (Grounded, 40, ["failed calls"]),
        (Aloft, 5, ["failed calls"]),
        (Hosted, 5, ["failed calls", "hosts that came back"]),
        (Forged, 5, ["failed calls", "jobs done", "runners of GARM and jobs of GitLab"]),
    ],
)
def test_an_episode_is_a_function_of_its_seed(
    template: Path, tmp_path: Path, kind: type[Episode], builds: int, befell: list[str]
) -> None:
    outcomes = []
    for root in (tmp_path / "first", tmp_path / "again"):
        root.mkdir()
        episode = kind(template, root, "air:3", builds)
        try:
            episode.play()
            ended = [episode.world.truth.builds.get(build.id) for build in episode.builds]
            ends = [(build.result, build.reason, build.finished_at) for build in ended]
            outcomes.append((episode.happened, ends, sorted(episode.world.overrun.values())))
        finally:
            episode.world.close()
    assert outcomes[0] == outcomes[1]
    assert all(outcomes[0][0][what] > 0 for what in befell)
