"""A stand-in for a Kubernetes API server that forwards a pod's port over a WebSocket, and the
channel of a driver to it.

The frames are those of `portforward` in `v4.channel.k8s.io`: a byte that names the stream (0 data,
1 error), and on each stream the port first, in two bytes. A stream's end is told as in
`v5.channel.k8s.io`: byte 255, then the stream.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from vmrunner.model import Address

PROTOCOL: Final = Subprotocol("v5.channel.k8s.io")
_DATA, _ERROR, _END = b"\0", b"\1", b"\xff"
_PIECE: Final = 1 << 16
_HANDSHAKE: Final = 10.0  # seconds


def _path(address: Address) -> str:
    namespace, _, pod = address.host.partition("/")
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={address.port}"


class PortForwardServer:
    """Forwards the ports of `pods` to where each leads; knows no other."""

    def __init__(self) -> None:
        self.pods: dict[Address, Address] = {}
        self._server: Server = serve(
            self._forward,
            "127.0.0.1",
            0,
            subprotocols=[PROTOCOL],
            compression=None,
            ping_interval=None,
            process_request=self._look_up,
        )
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._open: list[ServerConnection] = []
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _to(self, path: str) -> Address | None:
        return {_path(pod): to for pod, to in self.pods.items()}.get(path)

    def _look_up(self, connection: ServerConnection, request: Any) -> Any:
        if self._to(request.path) is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "pod not found\n")
        return None

    def _forward(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        to = self._to(connection.request.path)
        assert to is not None
        port = to.port.to_bytes(2, "little")
        connection.send(_DATA + port)
        connection.send(_ERROR + port)
        try:
            sock = socket.create_connection(to)
        except OSError as error:
            connection.send(_ERROR + f"error forwarding port {to.port}: {error}".encode())
            return
        self._open.append(connection)
        with sock:
            relay(sock, connection, lambda _: None)

    def die(self) -> None:
        """Break every connection off."""
        for connection in self._open:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.die()
        self._server.shutdown()
        self._thread.join()


@contextmanager
def port_forwarding() -> Iterator[PortForwardServer]:
    server = PortForwardServer()
    try:
        yield server
    finally:
        server.close()


def relay(sock: socket.socket, connection: Any, failed: Callable[[str], object]) -> None:
    """Carry the bytes of a socket over a WebSocket and back, until both ways have ended or one
    side is gone. `failed` hears what is told on the stream of errors."""
    sender = threading.Thread(target=_send, args=(sock, connection), daemon=True)
    sender.start()
    try:
        for message in connection:
            if message[:1] == _END:
                sock.shutdown(socket.SHUT_WR)
            elif message[:1] == _DATA:
                sock.sendall(message[1:])
            else:
                failed(message[1:].decode())
    except ConnectionClosed as error:
        failed(f"the port-forward broke off: {error}")
    except OSError:
        pass  # nobody has the other end
    finally:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sender.join()


def _send(sock: socket.socket, connection: Any) -> None:
    """Send what comes from a socket, to its end; hang up once nobody has its other end."""
    with suppress(OSError, ConnectionClosed):
        while data := sock.recv(_PIECE):
            connection.send(_DATA + data)
        connection.send(_END + _DATA)
        gone = select.poll()
        gone.register(sock, 0)
        gone.poll()
    connection.close()


def channel(provider: Callable[[], Any]) -> PortForwardChannel:
    """As such a driver's `DRIVER` would name it: of the provider, which has the credentials."""
    return PortForwardChannel(provider().url)


class ForwardedStream(socket.socket):
    """The near end of a stream over a WebSocket. Its reader hears why it ended."""

    why = ""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        if not data and self.why:
            raise ConnectionError(self.why)
        return data


class PortForwardChannel:
    """`Channel` of pods: a WebSocket to the API server, carried by threads of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def open(self, address: Address) -> socket.socket:
        ours, theirs = socket.socketpair()
        near = ForwardedStream(fileno=ours.detach())
        near.setblocking(False)
        threading.Thread(target=self._carry, args=(near, theirs, address), daemon=True).start()
        return near

    def is_local(self, address: Address) -> bool:
        return False

    def _carry(self, near: ForwardedStream, far: socket.socket, address: Address) -> None:
        def failed(why: str) -> None:
            near.why = why

        with far:
            try:
                with connect(
                    self._url + _path(address),
                    subprotocols=[PROTOCOL],
                    compression=None,
                    proxy=None,
                    open_timeout=_HANDSHAKE,
                    ping_interval=None,
                ) as connection:
                    connection.recv(), connection.recv()  # the port, on each stream
                    relay(far, connection, failed)
            except InvalidStatus as error:
                failed(f"{error.response.status_code} {error.response.reason_phrase}")
            except (OSError, WebSocketException) as error:
                failed(str(error))
