"""A container image that the VM does not have: the supervisor's own program has it pulled."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.fake_sessions import Running
from tests.support.guest import Followed, Guest, job, start
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.model import BuildState, Reason, Result
from vmrunner.session import session as module
from vmrunner.session.protocol import EndFrame

DIGEST = "sha256:" + "0" * 64


def order(*scripts: str, container: str = "python:3", **changes: Any) -> bytes:
    return job(*scripts, container=container, network="open", **changes)


def hold_pulls(guest: Guest) -> None:
    """A pull goes on and on until somebody hangs up or sets `may_pull`."""
    guest.docker.registry = ["python:3"]
    guest.docker.may_pull.clear()


@contextmanager
def starting(guest: Guest, request: bytes) -> Iterator[list[Followed]]:
    """A `start` in a thread; what it brought is there after the block."""
    got: list[Followed] = []
    thread = threading.Thread(target=lambda: got.append(start(guest, request)))
    thread.start()
    try:
        yield got
    finally:
        guest.docker.may_pull.set()
        thread.join()


@pytest.mark.parametrize(
    ("container", "pulled"),
    [
        ("python:3", {"fromImage": "python", "tag": "3"}),
        ("python", {"fromImage": "python", "tag": "latest"}),
        ("reg.org:5000/a/b", {"fromImage": "reg.org:5000/a/b", "tag": "latest"}),
        (f"a/b@{DIGEST}", {"fromImage": f"a/b@{DIGEST}"}),
    ],
)
def test_an_image_that_is_not_there_is_pulled(
    guest: Guest, container: str, pulled: dict[str, str]
) -> None:
    guest.docker.registry = [":".join(pulled.values())]
    got = start(guest, order("echo ran", container=container))
    assert (got.log, got.ended) == (b"ran\n", EndFrame(Reason.EXIT_CODE, 0, ""))
    assert [event.kind for event in got.events][:3] == ["pulling", "container", "step_started"]
    assert guest.docker.pulls == [pulled]


def test_an_image_that_is_there_is_not_pulled(guest: Guest) -> None:
    got = start(guest, order("true", container="debian:trixie"))
    assert (got.at("pulling"), guest.docker.pulls) == ([], [])


def test_without_network_nothing_is_pulled(guest: Guest) -> None:
    guest.docker.registry = ["python:3"]
    got = start(guest, job("true", container="python:3", network="none"))
    assert got.ended == EndFrame(
        Reason.IMAGE,
        None,
        "container image python:3 is not in this VM image; it has: debian:trixie",
    )
    assert (got.at("pulling"), guest.docker.pulls) == ([], [])


def test_a_registry_that_says_no_is_asked_once_and_quoted(guest: Guest) -> None:
    got = start(guest, order("true"))
    assert got.ended == EndFrame(
        Reason.IMAGE,
        None,
        "container image python:3 is not in this VM image (it has: debian:trixie) and cannot be "
        "pulled: manifest for python:3 not found: manifest unknown",
    )
    assert len(guest.docker.pulls) == 1


@pytest.mark.parametrize("status", [500, 200, 0])
def test_a_network_that_fails_for_a_moment_is_tried_again(guest: Guest, status: int) -> None:
    """Whether Docker says it at once, in the middle, or dies of it."""
    guest.docker.registry = ["python:3"]
    guest.docker.pull_errors = [(status, "connection reset by peer")] * 2
    got = start(guest, order("echo ran"))
    assert (got.log, got.ended) == (b"ran\n", EndFrame(Reason.EXIT_CODE, 0, ""))
    assert (len(got.at("pulling")), len(guest.docker.pulls)) == (1, 3)


def test_a_lasting_network_outage_ends_in_dockers_words(guest: Guest) -> None:
    guest.docker.pull_errors = [(200, "read tcp:\n i/o timeout" + "!" * 9999)] * 9
    got = start(guest, order("true"))
    assert got.ended is not None
    assert got.ended.reason == Reason.IMAGE
    assert "cannot be pulled: read tcp: i/o timeout!!!" in got.ended.message
    assert len(got.ended.message) < 500
    assert len(guest.docker.pulls) == 3


def test_cancel_ends_a_pull_at_once(guest: Guest) -> None:
    hold_pulls(guest)
    with starting(guest, order("echo never")) as got:
        wait_for(lambda: guest.docker.pulls)
        assert guest.call("cancel", "user").returncode == 0
        wait_for(guest.docker.hung_up.is_set, 15)
    assert got[0].ended == EndFrame(Reason.USER, None, "container image python:3 was being pulled")
    assert (got[0].log, guest.docker.created) == (b"", [])


def test_a_pull_counts_for_the_builds_timeout(guest: Guest) -> None:
    hold_pulls(guest)
    with starting(guest, order("echo never", timeout=0.5)) as got:
        wait_for(guest.docker.hung_up.is_set, 15)
    assert got[0].ended == EndFrame(
        Reason.BUILD_TIMEOUT, None, "container image python:3 was being pulled"
    )
    assert guest.docker.created == []


def test_the_steps_have_what_a_pull_left_of_the_timeout(guest: Guest) -> None:
    hold_pulls(guest)
    with starting(guest, order("echo begun; sleep 60", timeout=6.0)) as got:
        wait_for(lambda: guest.docker.pulls)
        begun = time.monotonic()
        wait_for(lambda: time.monotonic() > begun + 3)
        guest.docker.may_pull.set()
    assert (got[0].log, got[0].ended) == (b"begun\n", EndFrame(Reason.BUILD_TIMEOUT, None, ""))
    lines = (guest.run / "spool" / "events").read_text().splitlines()
    at = {event["kind"]: event["clock"] for event in map(json.loads, lines)}
    assert at["ended"] - at["container"] < 6 < at["ended"] - at["pulling"]


def test_a_supervisor_that_dies_in_a_pull_pulls_again(guest: Guest) -> None:
    hold_pulls(guest)
    with starting(guest, order("echo ran >>count; cat count")) as got:
        for number in range(1, 4):
            wait_for(lambda number=number: len(guest.docker.pulls) == number)
            guest.kill_run()
            wait_for(guest.docker.hung_up.is_set)
            guest.docker.hung_up.clear()
            guest.restart_run()
        wait_for(lambda: len(guest.docker.pulls) == 4)
        guest.docker.may_pull.set()
    assert (got[0].log, got[0].ended) == (b"ran\n", EndFrame(Reason.EXIT_CODE, 0, ""))
    assert (len(got[0].at("pulling")), len(guest.docker.created)) == (1, 1)


@pytest.mark.parametrize("call", ["create", "start"])
def test_a_supervisor_killed_while_creating_its_container_runs_it_once(
    guest: Guest, call: str
) -> None:
    """Docker did it, and who asked for it never heard."""
    guest.docker.mute = [call]
    with starting(guest, job("echo ran >>count; cat count")) as got:
        wait_for(lambda: not guest.docker.mute)
        guest.kill_run()
        guest.restart_run()
    assert (got[0].log, got[0].ended) == (b"ran\n", EndFrame(Reason.EXIT_CODE, 0, ""))
    assert len(guest.docker.created) == 1


def test_a_container_that_may_have_started_is_not_started_again(guest: Guest) -> None:
    """Here it had not; but that is more than a supervisor can know that comes after."""
    guest.docker.deaf = ["start"]
    with starting(guest, job("echo never")) as got:
        wait_for(lambda: not guest.docker.deaf)
        guest.kill_run()
        guest.restart_run()
    assert got[0].ended == EndFrame(
        Reason.INTERNAL, None, "the supervisor died while it started the container"
    )
    assert guest.docker.process is None


def test_no_other_source_comes_in_while_an_image_is_pulled(guest: Guest) -> None:
    """Who takes the build over unpacks it first: the steps would begin in half of it."""
    hold_pulls(guest)
    guest.work.mkdir()
    (guest.work / "input").write_text("whole\n")
    with starting(guest, order("cat input")) as got:
        wait_for(lambda: guest.docker.pulls)
        assert guest.call("unpack").returncode == 6
        guest.docker.may_pull.set()
    assert got[0].log == b"whole\n"


# --- as a session sees it --------------------------------------------------------------------


def test_a_pull_may_take_longer_than_a_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_pulls(world.guest)
    running = Running(world.session("echo ran", container="python:3"))
    wait_for(lambda: "pulling" in world.record.kinds())
    session = running.session
    assert session._until is not None
    assert session._until > time.monotonic() + module.START_PATIENCE
    assert world.record.states[-1] is BuildState.RUNNING
    world.guest.docker.may_pull.set()
    assert running.wait().exit_code == 0
    assert world.record.kinds() == ["pulling", "container", "step_started", "step_ended"]


def test_a_build_is_cancelled_while_its_image_is_pulled(world: World) -> None:
    hold_pulls(world.guest)
    running = Running(world.session("echo never", container="python:3"))
    wait_for(lambda: "pulling" in world.record.kinds())
    running.session.stop(Reason.USER)
    verdict = running.wait(module.CANCEL_PATIENCE)
    assert (verdict.result, verdict.reason) == (Result.CANCELLED, Reason.USER)
    assert world.guest.docker.hung_up.wait(10)
