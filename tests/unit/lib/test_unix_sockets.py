"""Unix sockets in deep directories."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

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
        subprocess.run(
            [sys.executable, "-P", "-m", unix_sockets.__name__, str(path)],
            stdout=theirs,
            check=True,
        )
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        server, _ = listener.accept()
        with socket.socket(fileno=descriptor) as client, server:
            server.sendall(b"SSH-2.0-x\r\n")
            assert client.recv(20) == b"SSH-2.0-x\r\n"


def test_an_address_is_a_path_or_a_host_and_port() -> None:
    assert Address("/a/ssh").is_socket
    assert not Address("127.0.0.1", 2222).is_socket
    assert [str(Address("/a/ssh")), str(Address("h", 2222))] == ["/a/ssh", "h:2222"]
