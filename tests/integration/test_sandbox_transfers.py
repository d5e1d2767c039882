"""Bytes into a sandbox and out of it, while connections break and owners change."""

from __future__ import annotations

import contextlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.sandboxes import SandboxWorld, sandbox
from tests.support.session_world import sshd, world
from tests.support.sshd import wait_for
from vmrunner.api.port_forward import PortForward
from vmrunner.api.sandbox import command_order
from vmrunner.api.sandbox_files import SandboxFiles, _Extraction
from vmrunner.errors import Conflict, NotFound
from vmrunner.lib.archive.files import ArchiveCaps
from vmrunner.session.ssh import channel_io

pytestmark = pytest.mark.timeout(60)
__all__ = ["sandbox", "sshd", "world"]


def taken_over(sandbox: SandboxWorld) -> None:
    """Another owner has spoken to the VM, and nobody here knows it yet."""
    sandbox.run("true")
    assert sandbox.world.guest.call("signal", "none", "0", epoch=5).returncode == 9
    sandbox.row = replace(sandbox.row, epoch=5)


def test_after_a_take_over_an_upload_is_whole(sandbox: SandboxWorld, tmp_path: Path) -> None:
    work = sandbox.world.guest.work
    (tmp_path / "data").write_bytes(b"x" * 1_000_000)
    files = SandboxFiles(sandbox.client, contextlib.nullcontext)
    taken_over(sandbox)
    files.upload(tmp_path / "data", str(work))
    assert (work / "data").read_bytes() == b"x" * 1_000_000


def test_what_comes_once_is_not_sent_half(sandbox: SandboxWorld) -> None:
    path = sandbox.world.guest.work / "data"
    taken_over(sandbox)
    sandbox.client.write_file(str(path), iter([b"one ", b"two"]))
    assert path.read_bytes() == b"one two"


def test_what_broke_off_half_way_loses_no_sandbox(sandbox: SandboxWorld) -> None:
    path = str(sandbox.world.guest.work / "data")

    def pieces() -> Iterator[bytes]:
        yield b"one"
        sandbox.world.proxy.cut()
        yield bytes(4 << 20)

    with pytest.raises(Conflict, match="b-1 broke off half-way"):
        sandbox.client.write_file(path, pieces())
    with pytest.raises(NotFound):
        sandbox.client.stat_file(path)


def test_below_a_file_there_is_nothing(sandbox: SandboxWorld) -> None:
    path = sandbox.world.guest.work / "data"
    files = SandboxFiles(sandbox.client, contextlib.nullcontext)
    files.write(str(path), b"x")
    assert not files.exists(f"{path}/below")
    assert not files.exists(f"{path}/far/below")
    with pytest.raises(Conflict, match="Not a directory"):
        files.list(str(path))


def test_a_connection_that_died_unused_is_not_used(sandbox: SandboxWorld) -> None:
    path = str(sandbox.world.guest.work / "data")
    sandbox.client.write_file(path, [b"x"])
    sandbox.world.proxy.cut()
    parts: list[bytes] = []
    sandbox.client.read_file(path, parts.append)
    assert parts == [b"x"]


def test_zeros_after_the_end_of_a_tar_are_taken(tmp_path: Path) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("f"))
    with _Extraction(tmp_path / "out", ArchiveCaps()) as extraction:
        extraction.take(tar.getvalue()[:1536])  # one head, and the end
        extraction._thread.join(timeout=0.5)
        extraction.take(tar.getvalue()[1536:])
    assert (tmp_path / "out/f").exists()


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port on which one connection is served."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=30)


def test_who_listens_hears_that_a_forwarded_port_ended(sandbox: SandboxWorld) -> None:
    with (
        listening(lambda connection: connection.sendall(b"hello")) as port,
        PortForward(sandbox.client, port, 0) as forward,
        socket.create_connection(forward.address, timeout=10) as here,
        here.makefile("rb") as answer,
    ):
        assert answer.read() == b"hello"
    wait_for(lambda: not [thread for thread in threading.enumerate() if "_send_all" in thread.name])


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def test_a_forwarded_port_takes_and_gives_much_at_once(sandbox: SandboxWorld) -> None:
    size = 24 << 20

    def serve(connection: socket.socket) -> None:
        connection.sendall(bytes(size))
        while connection.recv(1 << 16):
            pass

    with (
        listening(serve) as port,
        PortForward(sandbox.client, port, 0) as forward,
        socket.create_connection(forward.address, timeout=20) as here,
        here.makefile("rb") as answer,
    ):

        def send() -> None:
            here.sendall(bytes(size))
            here.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert len(answer.read()) == size
        sender.join()


def test_after_a_take_over_a_forwarded_port_loses_no_byte(sandbox: SandboxWorld) -> None:
    taken_over(sandbox)
    with (
        listening(echo) as port,
        PortForward(sandbox.client, port, 0) as forward,
        socket.create_connection(forward.address, timeout=10) as here,
        here.makefile("rb") as answer,
    ):
        here.sendall(b"hello\n")
        assert answer.readline() == b"hello\n"


def test_a_forwarded_connection_into_a_black_hole_ends(
    sandbox: SandboxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_io, "ASK_AFTER", 0.5)
    monkeypatch.setattr(channel_io, "DEAD_AFTER", 0.5)
    with (
        listening(echo) as port,
        PortForward(sandbox.client, port, 0) as forward,
        socket.create_connection(forward.address, timeout=15) as here,
        here.makefile("rb") as answer,
    ):
        here.sendall(b"hello\n")
        assert answer.readline() == b"hello\n"
        sandbox.world.proxy.stalled.set()
        try:
            assert answer.read() == b""
        finally:
            sandbox.world.proxy.stalled.clear()


@pytest.mark.parametrize("name", ["a.b", "x" * 5000, "--gzip", ""])
def test_what_is_no_id_of_a_command_is_not_found(sandbox: SandboxWorld, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(NotFound):
        sandbox.client.read(name, 0, 0, wait=1)
    with pytest.raises(NotFound):
        sandbox.client.signal(name, 9)
    with pytest.raises(NotFound):
        sandbox.client.send_input(name, 0, b"")
    assert time.monotonic() - began < 30


def test_no_offset_shows_a_part_of_a_secret(sandbox: SandboxWorld) -> None:
    order = sandbox.order("/bin/sh", "-c", 'echo "a $TOKEN b"')
    sandbox.client.run(order, lambda *_: None)
    shown = {sandbox.client.read(order.id, at, 0, wait=5).stdout for at in range(17)}
    assert not [text for text in shown if b"value" in text or b"lue" in text], shown
    assert sandbox.client.read(order.id, 14, 0, wait=5).stdout == b" b\n"


def test_an_offset_past_the_end_is_refused_by_name(sandbox: SandboxWorld) -> None:
    order = sandbox.order("echo", "x")
    sandbox.client.run(order, lambda *_: None)
    with pytest.raises(Conflict, match="stdout"):
        sandbox.client.read(order.id, 100, 0, wait=1)


def test_titles_of_commands_hold_no_secret(sandbox: SandboxWorld) -> None:
    for word in ("s3cr3t-value", "x" * 185 + " s3cr3t-value"):
        order = command_order(["echo", word], env={}, cwd=str(sandbox.world.guest.work))
        sandbox.client.run(order, lambda *_: None)
    titles = [command.title for command in sandbox.client.commands()]
    assert titles == ["echo ***", f"echo '{'x' * 185} …"]


def test_input_past_what_came_is_refused_by_name(sandbox: SandboxWorld) -> None:
    order = sandbox.order("cat", stdin=True)
    sandbox.client.start(order)
    with pytest.raises(Conflict, match="offset: its stdin is at byte 0, not 9"):
        sandbox.client.send_input(order.id, 9, b"x")
    sandbox.client.signal(order.id, 9)
