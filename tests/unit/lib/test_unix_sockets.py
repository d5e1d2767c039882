"""Unix sockets in deep directories."""

from __future__ import annotations

import shlex
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.sshd import wait_for
from vmrunner.lib import unix_sockets
from vmrunner.model import Address


@pytest.fixture
def path(tmp_path: Path) -> Path:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    return deep / "ssh"


def test_a_socket_is_reached_however_long_its_path_is(path: Path) -> None:
    with unix_sockets.listen(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_ISSOCK(path.stat().st_mode)
        unix_sockets.connect(client, path)
        server, _ = listener.accept()
        with server:
            client.sendall(b"hello")
            assert server.recv(10) == b"hello"


def test_nobody_there_is_told_as_ever(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(FileNotFoundError):
            unix_sockets.connect(client, path)
        unix_sockets.listen(path).close()
        with pytest.raises(ConnectionRefusedError):
            unix_sockets.connect(client, path)


def test_ssh_is_handed_the_connection_itself(path: Path) -> None:
    """As a ProxyCommand with ProxyUseFdpass: the program is gone, the connection stays."""
    ours, theirs = socket.socketpair()
    with unix_sockets.listen(path) as listener, ours, theirs:
        with socket.socket(socket.AF_UNIX) as stream:
            unix_sockets.connect(stream, path)
            with unix_sockets.handed_out(stream) as command:
                subprocess.run(shlex.split(command), stdout=theirs, check=True)
                place = Path(shlex.split(command)[-1]).parent
                wait_for(lambda: not place.exists())  # a kill leaves nothing
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        server, _ = listener.accept()
        with socket.socket(fileno=descriptor) as client, server:
            server.sendall(b"SSH-2.0-x\r\n")
            assert client.recv(20) == b"SSH-2.0-x\r\n"


def test_a_connection_that_nobody_takes_holds_nothing_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, unix_sockets.handed_out(theirs) as command:
        directory = Path(shlex.split(command)[-1]).parent
        assert directory.is_dir()
    assert not directory.exists()


def test_an_address_is_written_and_read_alike() -> None:
    for text in ("/a:1/ssh", "h:2222", "::1:22"):
        assert str(Address.parse(text)) == text
    assert Address.parse("h:2222") == Address("h", 2222)
    assert Address.parse("/a/ssh") == Address("/a/ssh")
