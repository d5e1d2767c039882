"""What a work directory may hold beside files, and an archive that is not what was asked for."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.support.session_world import World
from vmrunner.model import ArtifactRule, Reason, Result
from vmrunner.session import collect

pytestmark = pytest.mark.timeout(120)

SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind('out/sock')"


def test_what_is_no_file_is_told_and_costs_no_success(world: World) -> None:
    verdict = world.run(
        "mkdir -p out/venv out/.git; echo good >out/zgood; mkfifo out/fifo; touch out/.git/x",
        f'python3 -c "{SOCKET}"',
        "ln -s /usr/bin/python3 out/venv/python",
        rules=[ArtifactRule(glob="out/*")],
    )
    assert (verdict.result, verdict.reason) == (Result.SUCCESS, Reason.EXIT_CODE)
    assert verdict.message == "artifacts: 'out/.git' is git's own (and 3 more): left out"
    assert [p.name for p in world.artifacts.rglob("*") if p.is_file()] == ["zgood"]
    messages = [data["message"] for kind, data in world.record.events if kind == "artifact_omitted"]
    assert sorted(messages) == [
        "'out/.git' is git's own",
        "'out/fifo' is a FIFO",
        "'out/sock' is a socket",
        "the link 'out/venv/python' leads outside",
    ]
    assert ("artifacts", {"count": 2, "bytes": 5}) in world.record.events


def test_no_secret_is_in_what_is_told_of_artifacts(world: World) -> None:
    verdict = world.run(
        "mkdir out; mkfifo out/s3cr3t-word",
        secrets={"TOKEN": b"s3cr3t-word"},
        rules=[ArtifactRule(glob="out/*")],
    )
    messages = [data["message"] for kind, data in world.record.events if kind == "artifact_omitted"]
    assert messages == ["'out/***' is a FIFO"]
    assert verdict.message == "artifacts: 'out/***' is a FIFO: left out"


def test_root_in_the_vm_sends_nothing_not_asked_for(world: World) -> None:
    world.lie_about_artifacts("./dist/ok", "./.envrc")
    verdict = world.run("true", rules=[ArtifactRule(glob="dist/*")])
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert verdict.message == "archive: '.envrc' is nothing that was asked for"
    assert not (world.artifacts / ".envrc").exists()


def test_how_much_has_come_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes so far from chunk to chunk that each is worth a report."""
    ticks = itertools.count()
    arrival = partial(collect.Arrival, clock=lambda: collect.PROGRESS * 2.0 ** next(ticks))
    monkeypatch.setattr(collect, "Arrival", arrival)
    world.run("mkdir out; head -c 300000 /dev/zero >out/x", rules=[ArtifactRule(glob="out/*")])
    sizes = [data["bytes"] for kind, data in world.record.events if kind == "collecting"]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 300_000
