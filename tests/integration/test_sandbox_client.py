"""Clients of a sandbox: over a real sshd, with the resident supervisor behind it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandboxes import SandboxWorld, sandbox
from tests.support.session_world import sshd, world
from tests.support.sshd import wait_for
from vmrunner.api.port_forward import PortForward
from vmrunner.api.sandbox_files import SandboxFiles
from vmrunner.api.sandbox_process import SandboxProcess
from vmrunner.errors import ConfigError, Conflict, NotFound, SandboxOver
from vmrunner.lib.channels import TCP
from vmrunner.model import BuildState, Instance, Reason, Result
from vmrunner.services.sandboxes import SandboxClient
from vmrunner.session import supervisor_calls
from vmrunner.session.ssh import channel_io, client
from vmrunner.session.ssh.paramiko_patches import PatchedSocket

pytestmark = pytest.mark.timeout(120)
__all__ = ["sandbox", "sshd", "world"]


def test_commands_run_and_the_session_keeps_their_output(sandbox: SandboxWorld) -> None:
    assert sandbox.run("echo out; echo err >&2; exit 3") == (b"out\n", b"err\n", 3)
    assert sandbox.run("cat", stdin=False) == (b"", b"", 0)
    end = sandbox.end()
    assert (end.result, end.reason) == (Result.CANCELLED, Reason.USER)
    assert b"$ /bin/sh -c echo out; echo err >&2; exit 3\n" in sandbox.world.log
    assert sorted(sandbox.world.log.split(b"\n")[1:3]) == [b"err", b"out"]


def test_secrets_are_masked_in_both_streams(sandbox: SandboxWorld) -> None:
    out, err, _ = sandbox.run('echo "a $TOKEN b"; printf %s "$TOKEN" >&2')
    assert (out, err) == (b"a *** b\n", b"***")


def test_a_warm_connection_asks_the_ledger_nothing(sandbox: SandboxWorld) -> None:
    sandbox.run("true")
    before = sandbox.reads
    assert sandbox.run("echo again")[0] == b"again\n"
    assert sandbox.reads == before


def test_a_fork_takes_no_connection_of_its_parents(sandbox: SandboxWorld) -> None:
    sandbox.run("true")
    (kept,) = sandbox.client._warm._kept
    if not (child := os.fork()):
        try:
            os._exit(sandbox.run("exit 7")[2])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert sandbox.run("exit 8")[2] == 8
    assert sandbox.client._warm._kept == [kept]


def test_several_commands_run_at_once(sandbox: SandboxWorld) -> None:
    results: list[tuple[bytes, bytes, int]] = []
    wait = "while [ $(ls | wc -l) -lt 3 ]; do sleep 0.05; done"
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(sandbox.run(f"touch f{n}; {wait}; echo"))
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(b"\n", b"", 0)] * 3


def test_a_dropped_connection_loses_no_byte(sandbox: SandboxWorld) -> None:
    go = sandbox.world.guest.work / "go"
    results: list[tuple[bytes, bytes, int]] = []
    script = f"seq 1000; until [ -e {go} ]; do sleep 0.05; done; seq 1001 2000"
    thread = threading.Thread(target=lambda: results.append(sandbox.run(script)))
    thread.start()
    wait_for(lambda: b"\n1000\n" in sandbox.world.log)
    sandbox.world.proxy.cut()
    go.touch()
    thread.join()
    assert results == [(b"".join(b"%d\n" % n for n in range(1, 2001)), b"", 0)]


def test_a_black_hole_loses_no_byte(sandbox: SandboxWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is given up, and the thread that reads there notices that later."""
    monkeypatch.setattr(channel_io, "ASK_AFTER", 0.5)
    monkeypatch.setattr(channel_io, "DEAD_AFTER", 0.5)
    stalled, connect = sandbox.world.proxy.stalled, sandbox.client._connect
    hang_up = PatchedSocket.hang_up
    go = sandbox.world.guest.work / "go"
    parts: list[bytes] = []
    given_up: list[PatchedSocket] = []

    def shut(wire: PatchedSocket) -> None:
        if wire in given_up:
            hang_up(wire)
        given_up.append(wire)
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_WR)

    def dial(instance: Instance) -> client.Connection:
        stalled.clear()
        if parts:
            go.touch()
        return connect(instance)

    def take(_: object, data: bytes) -> None:
        parts.append(data)
        if not go.exists():
            stalled.set()

    monkeypatch.setattr(PatchedSocket, "hang_up", shut)
    monkeypatch.setattr(sandbox.client, "_connect", dial)
    script = f"echo one; until [ -e {go} ]; do sleep 0.05; done; echo two"
    end = sandbox.client.run(sandbox.order("/bin/sh", "-c", script), take)
    assert (b"".join(parts), end.exit_code) == (b"one\ntwo\n", 0)


def test_after_a_take_over_the_new_epoch_is_used(sandbox: SandboxWorld) -> None:
    sandbox.run("true")
    assert sandbox.world.guest.call("signal", "none", "0", epoch=5).returncode == 9
    sandbox.row = replace(sandbox.row, epoch=5)
    assert sandbox.run("echo on")[0] == b"on\n"


def test_an_epoch_that_nobody_has_is_refused(sandbox: SandboxWorld) -> None:
    assert sandbox.world.guest.call("signal", "none", "0", epoch=5).returncode == 9
    with pytest.raises(SandboxOver, match="stale"):
        sandbox.run("true")


def test_output_is_read_on_from_offsets(sandbox: SandboxWorld) -> None:
    order = sandbox.order("/bin/sh", "-c", "echo one; read -r _; echo two >&2; exit 4", stdin=True)
    sandbox.client.start(order)
    first = sandbox.client.read(order.id, 0, 0, wait=20)
    assert (first.stdout, first.end) == (b"one\n", None)
    sandbox.client.send_input(order.id, 0, b"go\n", last=True)
    rest = sandbox.client.read(order.id, first.next_stdout, first.next_stderr, wait=20)
    while rest.end is None:
        rest = sandbox.client.read(order.id, rest.next_stdout, 0, wait=20)
    assert (rest.stdout, rest.stderr, rest.end.exit_code) == (b"", b"two\n", 4)
    assert [command.id for command in sandbox.client.commands()] == [order.id]
    with pytest.raises(NotFound):
        sandbox.client.read("none", 0, 0, wait=1)


def test_files_go_there_and_back(sandbox: SandboxWorld) -> None:
    path = str(sandbox.world.guest.work / "d/x.bin")
    data = bytes(range(256)) * 4096
    sandbox.client.write_file(path, [data[:1000], data[1000:]])
    parts: list[bytes] = []
    sandbox.client.read_file(path, parts.append)
    assert b"".join(parts) == data
    assert [entry.name for entry in sandbox.client.list_files(str(sandbox.world.guest.work))] == [
        "d"
    ]
    assert sandbox.client.stat_file(path).size == len(data)
    sandbox.client.remove_file(path)
    with pytest.raises(NotFound, match="No such file"):
        sandbox.client.stat_file(path)
    with pytest.raises(Conflict, match="Is a directory"):
        sandbox.client.read_file(str(sandbox.world.guest.work), parts.append)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/", "root"),
        ("//", "root"),
        ("/work", "working directory"),
        ("/work/", "working directory"),
    ],
)
def test_a_mount_of_each_sandbox_is_not_removed(path: str, what: str) -> None:
    """All in it would go first, and then an error be told."""

    class NoLedger:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    client = SandboxClient(NoLedger(), "b-1", lambda _: TCP)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match=f"it is the {what} of the sandbox"):
        client.remove_file(path)


def test_a_sandbox_that_is_over_says_how(sandbox: SandboxWorld) -> None:
    sandbox.row = replace(
        sandbox.row,
        state=BuildState.FINISHED,
        result=Result.ERROR,
        reason=Reason.VM_LOST,
        message="the VM is gone",
    )
    with pytest.raises(SandboxOver, match="b-1 is over: error, vm_lost: the VM is gone"):
        sandbox.run("true")


@pytest.mark.parametrize("how", ["run", "read"])
@pytest.mark.parametrize(
    "ended", [{"cancel": Reason.USER}, {"hold_until": 0.0}, {"state": BuildState.COLLECTING}]
)
def test_the_sandboxs_end_is_no_exit_code(
    sandbox: SandboxWorld, ended: dict[str, Any], how: str
) -> None:
    """Its container kills what runs there, whose end comes before the ledger says `finished`."""
    marker = sandbox.world.guest.work / "began"
    script = f"touch {marker}; until [ -e {marker}.go ]; do sleep 0.05; done; kill -9 $$"
    order = sandbox.order("/bin/sh", "-c", script)
    sandbox.client.start(order)
    wait_for(marker.exists)
    sandbox.row = replace(sandbox.row, **ended)
    marker.with_suffix(".go").touch()
    follow: dict[str, Callable[[], object]] = {
        "run": lambda: sandbox.client.run(order, lambda *_: None),
        "read": lambda: sandbox.client.read(order.id, 0, 0, 30),
    }
    with pytest.raises(SandboxOver, match="sandbox b-1 is"):
        follow[how]()


def test_a_killed_command_of_a_living_sandbox_has_its_code(sandbox: SandboxWorld) -> None:
    assert sandbox.run("kill -9 $$")[2] == 137


def test_a_port_of_the_sandbox_is_reached_from_here(sandbox: SandboxWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data.upper())

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        with (
            PortForward(sandbox.client, port, 0) as forward,
            socket.create_connection(forward.address, timeout=20) as here,
            here.makefile("rb") as answer,
        ):
            here.sendall(b"a" * 100_000)
            here.shutdown(socket.SHUT_WR)
            assert answer.read() == b"A" * 100_000
        thread.join()
    near_end, other = socket.socketpair()
    with near_end, other, pytest.raises(NotFound, match="refused"):
        sandbox.client.forward(port, near_end)


def test_a_process_takes_lines_and_gives_lines(sandbox: SandboxWorld) -> None:
    order = sandbox.order("cat", stdin=True)
    sandbox.client.start(order)
    process = SandboxProcess(sandbox.client, order, contextlib.nullcontext)
    process.write("one\ntwo\nthr")
    assert next(iter(process)) == b"one\n"
    process.write(b"ee")
    process.close_stdin()
    assert list(process) == [b"two\n", b"three"]
    assert process.wait(timeout=10) == process.exit_code == 0
    process.kill()


def test_directories_go_up_and_come_down(sandbox: SandboxWorld, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/data").write_bytes(bytes(range(256)) * 4096)
    (source / "link").symlink_to("sub/data")
    files = SandboxFiles(sandbox.client, contextlib.nullcontext)
    remote_dir = str(sandbox.world.guest.work / "in")
    files.upload(source, remote_dir)
    assert files.download(remote_dir, tmp_path / "back") == tmp_path / "back"
    assert (tmp_path / "back/sub/data").read_bytes() == bytes(range(256)) * 4096
    assert (tmp_path / "back/link").readlink() == Path("sub/data")
    assert files.download(f"{remote_dir}/sub/data", tmp_path / "one").stat().st_size == 256 * 4096
    (source / "bad").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=r"bad.*; a part of .*/source may be in .*/in now"):
        files.upload(source, remote_dir)


def test_commands_one_after_another_share_a_process(sandbox: SandboxWorld) -> None:
    """And leave no file of theirs open in it, nor a child that ended."""
    resident = sandbox.world.guest.resident
    assert resident is not None

    def answering() -> dict[int, int]:
        found = {}
        for child in Path(f"/proc/{resident.pid}/task/{resident.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it ended
                if "memfd:stdin" in str(Path(f"/proc/{child}/fd/0").readlink()):
                    found[int(child)] = len(list(Path(f"/proc/{child}/fd").iterdir()))
        return found

    follows = answering()  # the sandbox itself
    sandbox.run("true")
    wait_for(lambda: not list((sandbox.world.guest.run / "running").iterdir()))
    before = answering()
    for _ in range(5):
        sandbox.run("cat; exit 3", stdin=False)
    (shared,) = before.keys() - follows.keys()
    wait_for(lambda: answering().get(shared, 99) <= before[shared])
    children = Path(f"/proc/{shared}/task/{shared}/children").read_text().split()
    assert children == []


def test_a_vm_of_a_former_version_is_asked_as_then(sandbox: SandboxWorld, tmp_path: Path) -> None:
    """Its resident supervisor reads the words of one command from a connection."""
    heard: list[object] = []

    def answer(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as connection, connection.makefile("rwb") as file:
                    heard.append(json.loads(file.readline()))
                    if isinstance(heard[-1], list):
                        file.write(b"X 0 0\n")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervisor_calls, "SOCKET", str(tmp_path / "socket"))
            for _ in range(2):
                sandbox.client.signal("c1", 15)
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    words = ["signal", "--epoch", "1", "c1", "15"]
    assert heard == [{"words": words, "stdin": 0}, words, words]
