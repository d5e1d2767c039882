"""A private image is pulled with a secret that nothing else sees."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.fake_sessions import Running
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.model import Reason, Result
from vmrunner.session import End

IMAGE = "registry.example.org:5000/team/app:1"
ACCOUNT = {"username": "robot", "password": "s3cr3t-word", "serveraddress": IMAGE.split("/")[0]}
LOGIN = b"robot:s3cr3t-word"
OTHER = b"another-secret"


@pytest.fixture
def private(world: World) -> World:
    world.guest.docker.registry = [IMAGE]
    world.guest.docker.accounts = {IMAGE: ACCOUNT}
    return world


def pulled(world: World, script: str = "true", login: bytes = LOGIN) -> End:
    secrets = {"LOGIN": login, "OTHER": OTHER}
    return world.run(script, container=IMAGE, secrets=secrets, registry_secret="LOGIN")


def test_the_registry_is_told_and_the_pull_works(private: World) -> None:
    assert pulled(private).result is Result.SUCCESS
    (login,) = set(private.guest.docker.logins)
    assert json.loads(base64.urlsafe_b64decode(login)) == ACCOUNT


def test_neither_container_nor_vm_keeps_anything_of_it(private: World) -> None:
    run = private.guest.run
    see = (
        f"env; cd {run}; ls secrets; cat box/env box/*.sh secrets/* job.json registry 2>&1 || true"
    )
    assert pulled(private, see).result is Result.SUCCESS
    log = private.log.decode()
    assert "OTHER" in log
    assert "LOGIN" not in log
    assert "registry: No such file" in log
    login = private.guest.docker.logins[0]
    for file in (path for path in run.rglob("*") if path.is_file()):
        data = file.read_bytes()
        assert LOGIN not in data, file
        assert b"s3cr3t-word" not in data, file
        assert login.encode() not in data, file
    text = json.dumps([dict(container) for container in private.guest.docker.created])
    assert "s3cr3t" not in text
    assert login not in text


def test_a_wrong_login_fails_and_its_echo_is_masked(private: World) -> None:
    """The registry says to Docker what it was told, and Docker says it to us."""
    end = pulled(private, login=b"robot:wr0ng-w0rd")
    assert (end.result, end.reason) == (Result.ERROR, Reason.IMAGE)
    assert "pull access denied" in end.message
    assert "wr0ng" not in end.message
    assert "*** is no login" in end.message


def test_without_the_secret_the_pull_fails(private: World) -> None:
    end = private.run("true", container=IMAGE)
    assert (end.result, end.reason) == (Result.ERROR, Reason.IMAGE)
    assert private.guest.docker.logins == []


def test_a_part_of_it_is_masked_in_the_log(private: World) -> None:
    end = pulled(private, "echo s3cr3t-word; printf robot:s3cr3t-word | base64")
    assert end.result is Result.SUCCESS
    assert b"s3cr3t" not in private.log
    assert base64.b64encode(LOGIN) not in private.log


def test_a_supervisor_that_dies_in_the_pull_still_has_it(private: World) -> None:
    docker = private.guest.docker
    docker.may_pull.clear()
    running = Running(
        private.session(
            "echo ran", container=IMAGE, secrets={"LOGIN": LOGIN}, registry_secret="LOGIN"
        )
    )
    wait_for(lambda: docker.pulls)
    private.guest.kill_run()
    wait_for(docker.hung_up.is_set)
    private.guest.restart_run()
    wait_for(lambda: len(docker.pulls) == 2)
    docker.may_pull.set()
    assert running.wait().result is Result.SUCCESS
    assert not (private.guest.run / "registry").exists()
