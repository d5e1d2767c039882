"""A VM that is warmed up and then given to a build, over a real sshd and the real supervisor."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.fake_sessions import Running
from tests.support.session_world import World, resident, sshd, world
from vmrunner.errors import ConfigError
from vmrunner.model import PoolSpec, Result
from vmrunner.session.ssh import client
from vmrunner.session.warm_up import WarmUp, WarmUpJob

pytestmark = pytest.mark.timeout(120)
__all__ = ["resident", "sshd", "world"]

SPEC = PoolSpec(name="fast", provider="local", container="debian:trixie")


def warmed(world: World, epoch: int = 1) -> client.Connection:
    job = WarmUpJob(
        instance="vm-1",
        epoch=epoch,
        address=world.proxy.address,
        access=world.sshd.access,
        spec=SPEC,
    )
    return WarmUp(job).run()


def test_a_build_runs_over_the_connection_that_is_there(
    resident: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = warmed(resident)
    waiting = resident.guest.docker.process

    def no(*_: object, **__: object) -> None:
        raise AssertionError("it connected again")

    monkeypatch.setattr(client.Dialer, "connect", no)
    session = resident.session("echo hello", epoch=2, connection=connection)
    assert Running(session).wait(30).result is Result.SUCCESS
    assert resident.log == b"hello\n"
    assert resident.guest.docker.process is waiting
    assert len(resident.guest.docker.created) == 1


def test_a_connection_that_died_meanwhile_is_made_again(resident: World) -> None:
    connection = warmed(resident)
    resident.proxy.cut()
    session = resident.session("echo hello", epoch=2, connection=connection)
    assert Running(session).wait(60).result is Result.SUCCESS
    assert resident.log == b"hello\n"


def test_a_vm_without_a_container_is_not_ready(resident: World) -> None:
    resident.guest.docker.start_error = (500, "busy")
    with pytest.raises(ConfigError, match=r"vm-1 has no container ready: .*busy"):
        warmed(resident)


def test_the_guest_hears_of_its_builds_end_before_the_steps(resident: World) -> None:
    connection = warmed(resident)
    at = time.time() + 500
    deadline = resident.guest.run / "deadline"
    session = resident.session(f"cat {deadline}", epoch=2, connection=connection, guest_due=at)
    assert Running(session).wait(30).result is Result.SUCCESS
    heard, since_boot = json.loads(resident.log)
    assert heard == at
    assert since_boot <= time.clock_gettime(time.CLOCK_BOOTTIME) + 500


def test_each_owner_says_it_again_and_it_only_falls(resident: World) -> None:
    deadline = resident.guest.run / "deadline"
    at = time.time() + 500
    deadlines = []
    for epoch, due in ((2, at), (3, at + 9_000), (4, at - 100)):
        Running(resident.session("true", epoch=epoch, guest_due=due)).wait(30)
        deadlines.append(json.loads(deadline.read_text())[0])
    assert deadlines == [at, at, at - 100]
