"""An SSH server that a build wrote: it has the VM's keys, and no manners."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import paramiko
import pytest

from vmrunner.model import Access, Address
from vmrunner.session.ssh import client, keys, paramiko_patches


@contextmanager
def serving(peer: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Somebody on the loopback who talks to whoever connects first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError, EOFError), listener.accept()[0] as connection:
                peer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address(*listener.getsockname()[:2])
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("line", [b"x" * 1000, b"x" * 1000 + b"\n"])
def test_a_greeting_without_end_is_cut(line: bytes) -> None:
    heard = 0

    def greet(connection: socket.socket) -> None:
        nonlocal heard
        for _ in range(20_000):
            connection.sendall(line)
            heard += len(line)

    made = keys.generate()
    dialer = client.Dialer(Access(user_private=made.private, host_public=made.public))
    with serving(greet) as address, pytest.raises(client.Unreachable, match="greeting") as caught:
        dialer.connect(address, timeout=0.05)
    assert heard < 19_000_000, "it was listened to up to the end"
    assert len(str(caught.value)) < 500


class Server(paramiko.ServerInterface):
    """Lets everybody in, and runs what they want."""

    def __init__(self) -> None:
        self.ordered = threading.Event()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.ordered.set()
        return True


@pytest.mark.parametrize("extended", [False, True])
def test_a_peer_that_ignores_the_window_fills_no_memory(extended: bool) -> None:
    host, user = keys.generate(), keys.generate()
    sent = 0
    over = threading.Event()

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        server = Server()
        transport = paramiko.Transport(connection)
        transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(host.private)))
        transport.start_server(server=server)
        channel = transport.accept(20)
        assert server.ordered.wait(20)
        try:
            while sent < 4 * paramiko_patches.WINDOW and transport.is_active():
                message = paramiko.Message()
                kind = "EXTENDED_" if extended else ""
                message.add_byte(getattr(paramiko.common, f"cMSG_CHANNEL_{kind}DATA"))
                message.add_int(channel.remote_chanid)
                if extended:
                    message.add_int(1)
                message.add_string(bytes(32_000))
                transport._send_user_message(message)
                sent += 32_000
        finally:
            over.set()
            transport.close()

    kept = 0

    def take(data: bytes) -> None:
        """A disk that stands still; what it has by then is not kept for it."""
        nonlocal kept
        kept += len(data) if over.is_set() else 0
        over.wait(20)

    def pulse() -> float:
        over.wait(20)
        return 5.0

    dialer = client.Dialer(Access(user_private=user.private, host_public=host.public))
    with serving(flood) as address:
        connection = dialer.connect(address, timeout=20)
        try:
            with pytest.raises(client.ConnectionLost):
                connection.stream("anything", take, pulse=pulse)
        finally:
            connection.close()
    assert sent < 4 * paramiko_patches.WINDOW, "it could send as much as it liked"
    assert kept <= paramiko_patches.WINDOW + paramiko_patches.PACKET


def test_a_session_that_is_refused_is_a_lost_connection() -> None:
    host, user = keys.generate(), keys.generate()
    heard = threading.Event()

    class Refusing(Server):
        def check_channel_request(self, kind: str, chanid: int) -> int:
            return paramiko.common.OPEN_FAILED_RESOURCE_SHORTAGE

    def refuse(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(host.private)))
        transport.start_server(server=Refusing())
        heard.wait(20)
        transport.close()

    dialer = client.Dialer(Access(user_private=user.private, host_public=host.public))
    with serving(refuse) as address:
        connection = dialer.connect(address, timeout=20)
        try:
            with pytest.raises(client.ConnectionLost):
                connection.run("true")
        finally:
            heard.set()
            connection.close()
