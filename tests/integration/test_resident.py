"""The resident supervisor: a real sshd hands a session's commands to a process that is there."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_sessions import Running
from tests.support.session_world import World, resident, sshd, world
from tests.support.sshd import wait_for
from vmrunner.guest import exit_events
from vmrunner.model import Reason, Result
from vmrunner.session.prepare import Preparation
from vmrunner.session.ssh.client import Dialer
from vmrunner.session.supervisor_calls import SupervisorCalls

pytestmark = pytest.mark.timeout(120)
__all__ = ["resident", "sshd", "world"]

SHAPE = {"container": "debian:trixie", "runtime": "runc", "network": "open", "log_bytes": 64 << 20}


def prestart(world: World) -> None:
    assert prestart_code(world) == 0


def prestart_code(world: World, epoch: int = 0) -> int:
    connection = Dialer(world.sshd.access).connect(world.proxy.address, timeout=20)
    try:
        calls = SupervisorCalls(connection, epoch)
        done = calls.ask("prestart", stdin=[json.dumps(SHAPE).encode()])
    finally:
        connection.close()
    return done.exit_code


def test_a_build_starts_no_process_of_the_supervisors(resident: World) -> None:
    verdict = resident.run("echo one", "echo two; exit 3")
    assert (verdict.result, verdict.exit_code) == (Result.FAILURE, 3)
    assert resident.log == b"one\ntwo\n"


def test_a_container_that_waits_gets_the_build_of_its_shape(resident: World) -> None:
    prestart(resident)
    waiting = resident.guest.docker.process
    assert waiting is not None
    assert waiting.poll() is None
    verdict = resident.run("echo hello")
    assert (verdict.result, resident.log) == (Result.SUCCESS, b"hello\n")
    assert resident.guest.docker.process is waiting
    assert len(resident.guest.docker.created) == 1


def test_a_container_that_waits_has_room_for_commands(resident: World) -> None:
    """A sandbox that gets it starts no program for that."""
    prestart(resident)
    assert (resident.guest.run / "commands").is_dir()
    assert (resident.guest.run / "box/commands").is_dir()


def test_a_build_after_its_container_opens_no_channel(
    resident: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Dialer(resident.sshd.access).connect(resident.proxy.address, timeout=20)
    calls = SupervisorCalls(connection, 0)
    done = calls.ask_next("prestart", stdin=json.dumps(SHAPE).encode(), pulse=lambda: 60.0)
    assert done.exit_code == 0
    opened: list[str] = []
    monkeypatch.setattr(connection, "_open_socket", opened.append)
    running = Running(resident.session("echo hello", connection=connection))
    assert (running.wait(30).result, resident.log) == (Result.SUCCESS, b"hello\n")
    assert opened == []


def test_a_channel_whose_resident_died_is_no_builds_end(resident: World) -> None:
    connection = Dialer(resident.sshd.access).connect(resident.proxy.address, timeout=20)
    calls = SupervisorCalls(connection, 0)
    done = calls.ask_next("prestart", stdin=json.dumps(SHAPE).encode(), pulse=lambda: 60.0)
    assert done.exit_code == 0
    resident.guest.kill_resident()
    resident.guest.start_resident()
    running = Running(resident.session("echo hello", connection=connection))
    assert (running.wait(30).result, resident.log) == (Result.SUCCESS, b"hello\n")


def test_a_container_that_died_waiting_is_no_builds_end(resident: World) -> None:
    prestart(resident)
    waiting = resident.guest.docker.process
    assert waiting is not None
    os.killpg(waiting.pid, signal.SIGKILL)
    waiting.wait()
    verdict = resident.run("echo hello")
    assert (verdict.result, resident.log) == (Result.SUCCESS, b"hello\n")


def test_a_resident_that_dies_amid_a_start_ends_none(resident: World, tmp_path: Path) -> None:
    marker, go = tmp_path / "asked", tmp_path / "go"
    nft = resident.guest.directory / "bin" / "nft"
    nft.write_text(f"#!/bin/sh\ntouch {marker}\nwhile [ ! -e {go} ]; do sleep 0.02; done\n")
    running = Running(resident.session("echo hello"))
    wait_for(marker.exists)
    resident.guest.kill_resident()
    resident.guest.start_resident()
    go.touch()
    assert (running.wait(60).result, resident.log) == (Result.SUCCESS, b"hello\n")


def test_another_shape_gets_a_container_of_its_own(resident: World) -> None:
    prestart(resident)
    waiting = resident.guest.docker.process
    verdict = resident.run("echo hello", docker=True)
    assert (verdict.result, resident.log) == (Result.SUCCESS, b"hello\n")
    assert resident.guest.docker.process is not waiting


def test_a_container_made_late_touches_no_build(resident: World) -> None:
    """The first try failed, a build came, and then there is another."""
    resident.guest.docker.start_error = (500, "busy")
    assert prestart_code(resident) == 1
    resident.guest.docker.start_error = None
    wait = "touch begun; while [ ! -e go ]; do sleep 0.1; done"
    running = Running(resident.session(wait, 'echo "A=$A"', env={"A": "kept"}))
    wait_for((resident.guest.work / "begun").exists)
    assert prestart_code(resident, epoch=1) == 0
    (resident.guest.work / "go").touch()
    assert (running.wait(30).result, resident.log) == (Result.SUCCESS, b"A=kept\n")


def test_a_build_whose_supervisor_is_killed_goes_on(resident: World) -> None:
    running = Running(resident.session("touch begun; while [ ! -e go ]; do sleep 0.1; done"))
    wait_for((resident.guest.work / "begun").exists)
    os.kill(_supervisor_of_the_build(resident), signal.SIGKILL)
    (resident.guest.work / "go").touch()
    assert running.wait(30).result is Result.SUCCESS


def test_a_resident_that_is_killed_is_found_again(resident: World) -> None:
    running = Running(resident.session("touch begun; while [ ! -e go ]; do sleep 0.1; done"))
    wait_for((resident.guest.work / "begun").exists)
    resident.guest.kill_resident()
    resident.guest.start_resident()
    resident.proxy.cut()
    (resident.guest.work / "go").touch()
    assert running.wait(30).result is Result.SUCCESS


def test_a_wish_to_cancel_reaches_the_build(resident: World) -> None:
    running = Running(resident.session("touch begun; sleep 60"))
    wait_for((resident.guest.work / "begun").exists)
    running.session.stop(Reason.USER)
    assert running.wait(30).reason is Reason.USER


def test_root_alone_may_speak_to_it(resident: World) -> None:
    mode = (resident.guest.run / "socket").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(resident.guest.run.stat().st_mode) == 0o700


def _supervisor_of_the_build(world: World) -> int:
    (leader,) = _leaders(world)
    return leader


def _leaders(world: World) -> list[int]:
    """Return the children of the resident that lead a session of their own: the build's
    supervisor."""
    return [pid for pid in _children(world) if os.getsid(pid) == pid]


def _children(world: World) -> list[int]:
    assert world.guest.resident is not None
    parent = world.guest.resident.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_what_waits_rehearses_a_step(resident: World) -> None:
    prestart(resident)
    assert (resident.guest.run / "box/commands/rehearsal/run.sh").exists()
    verdict = resident.run("echo hello")
    assert (verdict.result, resident.log) == (Result.SUCCESS, b"hello\n")
    assert len(resident.guest.docker.created) == 1


def test_a_first_line_waits_for_no_other_process(resident: World) -> None:
    """Neither does it to be sent: `run` never goes on here."""
    restart(resident, "import time; supervisor.run_build = lambda *_, **__: time.sleep(60)")
    prestart(resident)
    Running(resident.session("echo hello; sleep 60"))
    wait_for(lambda: resident.log == b"hello\n")


def test_a_build_goes_on_whose_opening_is_killed(resident: World) -> None:
    restart(resident, "from vmrunner.guest import direct_start; direct_start.OUTPUT_PATIENCE = 60")
    prestart(resident)
    running = Running(
        resident.session("touch begun; while [ ! -e go ]; do sleep 0.1; done; echo hello")
    )
    wait_for((resident.guest.work / "begun").exists)
    for pid in _children(resident):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: _leaders(resident) != [])
    (resident.guest.work / "go").touch()
    assert (running.wait(30).result, resident.log) == (Result.SUCCESS, b"hello\n")


def restart(world: World, line: str) -> None:
    """Have the resident begin anew, with a limit of its own."""
    world.guest.kill_resident()
    world.guest.set(line)
    world.guest.start_resident()


@pytest.mark.parametrize("code", [0, 7])
def test_a_containers_end_waits_for_no_docker(resident: World, code: int) -> None:
    prestart(resident)
    if told_by_kernel():
        resident.guest.docker.deaf.append("wait")
    verdict = resident.run(f"echo hello; exit {code}")
    assert (verdict.exit_code, resident.log) == (code, b"hello\n")


def told_by_kernel() -> bool:
    """True where this machine's kernel tells us of exits. Docker has to, elsewhere."""
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    exits = exit_events.watch({"runtime": "runc", "prestarted": process.pid})
    process.communicate()
    if exits is None:
        return False
    with exits:
        while select.select([exits], [], [], 5)[0]:
            if exits.read() == 0:
                return True
    return False


def test_the_container_is_made_while_the_source_comes_in(
    resident: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of it is sent only once the container is there."""
    running = _session_with_source(resident, tmp_path, monkeypatch, until=_has_container)
    assert running.wait(60).result is Result.SUCCESS
    assert resident.log == b"one\n"
    assert len(resident.guest.docker.created) == 1


def test_a_cancelled_build_waits_for_no_container(
    resident: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident.guest.docker.deaf.append("create")
    cancelled = threading.Event()

    def cancels(world: World) -> bool:
        if not world.guest.docker.deaf and not cancelled.is_set():
            running.session.stop(Reason.USER)
            cancelled.set()
        return cancelled.is_set()

    running = _session_with_source(resident, tmp_path, monkeypatch, until=cancels)
    assert running.wait(30).reason is Reason.USER
    assert not resident.guest.docker.created


@pytest.mark.parametrize("options", [{"docker": True}, {"runtime": "runsc"}])
def test_no_container_is_made_ahead_that_the_build_cannot_take(
    resident: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    resident.guest.docker.runtimes.append("runsc")
    running = _session_with_source(resident, tmp_path, monkeypatch, until=_is_there, **options)
    assert running.wait(60).result is Result.SUCCESS
    assert not (resident.guest.run / "prestarting").exists()


def _is_there(_: World) -> bool:
    return True


def _has_container(world: World) -> bool:
    return bool((world.guest.run / "prestarted").exists() and world.guest.docker.process)


def _session_with_source(
    world: World,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    until: Callable[[World], bool],
    **options: Any,
) -> Running:
    """A build whose source stops half way until something is so."""
    source = directory / "source.tar"
    (directory / "file").write_text("one\n")
    with tarfile.open(source, mode="w") as tar:
        tar.add(directory / "file", arcname="file")
    whole = source.read_bytes()

    def pieces(_: Preparation, *, pack: bool) -> Iterator[bytes]:
        assert not pack
        yield whole[:512]
        wait_for(lambda: until(world))
        yield whole[512:]

    monkeypatch.setattr(Preparation, "_source", pieces)
    return Running(world.session("cat file", source=source, **options))
