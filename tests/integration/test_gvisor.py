"""The supervisor's own program with gVisor as the runtime, without a VM."""

from __future__ import annotations

import time

import pytest

from tests.support.guest import Guest, job, start
from vmrunner.session.protocol import EndFrame


def test_the_container_runs_under_the_requested_runtime(guest: Guest) -> None:
    guest.docker.runtimes.append("runsc")
    got = start(guest, job("echo ran; exit 3", runtime="runsc"))
    assert (got.log, got.ended) == (b"ran\n", EndFrame("exit_code", 3, ""))
    host = guest.docker.created[0]["HostConfig"]
    assert (host["Runtime"], host["CapDrop"]) == ("runsc", ["ALL"])


def test_an_image_without_gvisor_ends_the_build_before_steps(guest: Guest) -> None:
    got = start(guest, job("touch ran", runtime="runsc"))
    assert got.ended == EndFrame(
        "image",
        None,
        'this VM image has no runsc (gVisor); a recipe with packages = ["runsc"] makes one that '
        "has: vmrunner image build gvisor",
    )
    assert (got.at("step_started"), (guest.work / "ran").exists()) == ([], False)


def test_term_is_sent_from_inside_the_sandbox(guest: Guest) -> None:
    """The processes that the VM sees are gVisor's own: one of them killed ends all."""
    guest.docker.runtimes.append("runsc")
    script = "trap 'echo caught; exit 0' TERM; echo begun; sleep 60 & wait"
    got = start(guest, job(script, runtime="runsc", timeout=0.5))
    assert (got.log, got.ended) == (b"begun\ncaught\n", EndFrame("build_timeout", None, ""))
    (command,) = guest.docker.execs
    assert command["Cmd"] == ["/bin/sh", "-c", "kill -TERM -1"]


def test_under_runc_the_vm_sends_it(guest: Guest) -> None:
    assert start(guest, job("sleep 60", timeout=0.5)).ended == EndFrame("build_timeout", None, "")
    assert guest.docker.execs == []


@pytest.mark.parametrize("call", ["exec", "start"])
def test_a_docker_that_cannot_send_term_is_not_waited_for(guest: Guest, call: str) -> None:
    """A container in which no process can be made, as by a fork bomb: it is killed."""
    guest.docker.runtimes.append("runsc")
    guest.docker.exec_error = call
    begun = time.monotonic()
    script = "trap '' TERM; echo begun; while :; do sleep 1; done"
    got = start(guest, job(script, runtime="runsc", timeout=0.5))
    assert (got.log, got.ended) == (b"begun\n", EndFrame("build_timeout", None, ""))
    assert time.monotonic() - begun < 15
