"""A container that waits ahead of its build, and a build that comes meanwhile."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vmrunner.guest import daemon, docker, identity, prestart, supervisor
from vmrunner.guest.daemon import Resident
from vmrunner.guest.state import ContainerError, Place

SHAPE = {"container": "debian:trixie", "runtime": "runc", "network": "open", "log_bytes": 64 << 20}
JOB: dict[str, Any] = {**SHAPE, "container": "another", "docker": False, "privileged": False}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    return place


class Over(Exception):
    """The resident's loop is left."""


def test_a_build_sees_a_container_about_to_be_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may come to run long after the build did."""
    present: list[bool] = []

    def step(_: Resident) -> None:
        raise Over

    monkeypatch.setattr(identity, "expected", lambda: True)
    monkeypatch.setattr(identity, "seed", lambda: SHAPE)
    monkeypatch.setattr(daemon.signal, "set_wakeup_fd", lambda _: None)
    monkeypatch.setattr(daemon.signal, "signal", lambda *_: None)
    monkeypatch.setattr(Resident, "_step", step)
    monkeypatch.setattr(
        Resident, "_fork", lambda *_: present.append(Path(place.prestarting).exists())
    )
    resident = Resident(place, "/work", obey=supervisor.obey, run_build=supervisor.run_build)
    with resident._listener, pytest.raises(Over):
        resident.run()
    for end in resident._signals:
        os.close(end)
    assert present == [True]


@pytest.mark.parametrize("status", [404, 500, 0])
def test_a_build_gets_no_container_that_could_not_be_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def remove() -> None:
        raise ContainerError(status, "no")

    monkeypatch.setattr(docker, "remove", remove)
    place.write(prestart.READY, json.dumps({"shape": SHAPE, "pid": 7, "id": "c0"}))
    if status == 404:  # there is none
        assert prestart.take(place, JOB) == 0
    else:
        with pytest.raises(ContainerError):
            prestart.take(place, JOB)


def test_who_takes_a_container_knows_which_it_is(place: Place) -> None:
    place.write(prestart.READY, json.dumps({"shape": SHAPE, "pid": 7, "id": "c0"}))
    job = {**JOB, **SHAPE}
    assert prestart.take(place, job) == 7
    assert job["container_id"] == "c0"


def test_a_resident_killed_before_its_answer_still_gives_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, host = socket.socketpair()
    monkeypatch.setattr(identity, "expected", lambda: True)
    monkeypatch.setattr(identity, "open_port", lambda: os.dup(ours.fileno()))
    monkeypatch.setattr(daemon, "TICK", 0.1)
    monkeypatch.setattr(daemon, "SPARES", 0)
    monkeypatch.setattr(daemon, "_listens", lambda _: True)
    place.write("identified", "")
    heard = []
    host.setblocking(False)
    with ours, host:
        for _ in range(2):
            resident = Resident(
                place, "/work", obey=supervisor.obey, run_build=supervisor.run_build
            )
            with resident._listener:
                resident._step()
            for end in resident._signals:
                os.close(end)
            with suppress(BlockingIOError):
                heard.append(host.recv(100))
    assert heard == [identity.ACK], "and only once"
