"""A stand-in for an API server, over whose WebSockets a program in a pod is run, a port of a
KubeVirt VM is forwarded, or a MicroVM's port is reached; and the channel of a driver to it.

Exec has the rules of Kubernetes' source as of 1.34 (apiserver/pkg/util/proxy/websocket.go and
streamtranslator.go, apimachinery/pkg/util/httpstream/wsstream/conn.go; for v4
kubelet/pkg/cri/streaming/remotecommand/websocket.go), read on 2026-12-01:
- the API server speaks v5 alone, a kubelet v4; who offers neither gets no connection;
- the first message is an empty one on the first stream that it writes;
- a stream that was not asked for in the query carries nothing, and one out of range is ignored;
- 255 and one byte end a stream of the client's, in v5 alone; a longer one ends the connection;
- nothing tells that the output has ended but the Status on stream 3, and the close after it;
- a connection that ends ends the program's stdin, and nothing waits for what it says then.

KubeVirt's port-forward is pkg/virt-api/rest/streamer.go, read that day: raw, and at the first end
of either side both connections are closed, without a farewell.
"""

from __future__ import annotations

import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from vmrunner.lib.websocket_channel import EXEC, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address

MICROVM: Final = "lambda-microvms.port.22"
_IN, _OUT, _ERR, _STATUS, _END = 0, 1, 2, 3, 255
_PIECE: Final = 1 << 15  # as io.Copy has it
SUCCESS: Final = {"metadata": {}, "status": "Success"}


def path_of(address: Address) -> str:
    """Where the sshd of a pod is run."""
    namespace, _, pod = address.host.partition("/")
    query = {"container": "vmrunner", "command": "sshd", "stdin": "true", "stdout": "true"}
    words = urllib.parse.urlencode(query | {"stderr": "true"})
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{words}"


def failure(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "message": message, "code": code}


class StreamServer:
    """Streams of `pods`, each to where what runs there has its bytes from; knows no other.
    `speaks`: its subprotocols. `token`: what a caller must bear."""

    def __init__(self, speaks: Sequence[str] = EXEC[:1], token: str = "t0ken") -> None:
        self.pods: dict[Address, Address] = {}
        self.stderr = b""  # said by each program when it begins
        self.status: dict[str, Any] | None = SUCCESS  # of each that ended; None: none is told
        self.token = token
        self._speaks = tuple(speaks)
        self._server: Server = serve(
            self._carry,
            "127.0.0.1",
            0,
            subprotocols=list(speaks),
            select_subprotocol=lambda _, offered: next(o for o in offered if o in self._speaks),
            compression=None,
            ping_interval=None,
            close_timeout=1,
            process_request=self._look_up,
        )
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self.open: list[ServerConnection] = []
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _look_up(self, connection: ServerConnection, request: Any) -> Any:
        offered = request.headers.get("Sec-WebSocket-Protocol", "").replace(",", " ").split()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._refuse(connection, HTTPStatus.UNAUTHORIZED, "Unauthorized")
        if not set(offered) & set(self._speaks):
            return connection.respond(HTTPStatus.FORBIDDEN, "")
        if self._to(request.path) is None:
            name = request.path.split("/")[-2]
            return self._refuse(connection, HTTPStatus.NOT_FOUND, f'pods "{name}" not found')
        return None

    def _refuse(self, connection: ServerConnection, code: HTTPStatus, message: str) -> Any:
        return connection.respond(code, json.dumps(failure(code, message)))

    def _to(self, path: str) -> Address | None:
        return {path_of(pod): to for pod, to in self.pods.items()}.get(path)

    def _carry(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        to = self._to(connection.request.path)
        assert to is not None
        self.open.append(connection)
        with suppress(ConnectionClosed, OSError), socket.create_connection(to) as program:
            if connection.subprotocol in EXEC:
                self._exec(connection, program)
            else:
                _forward(connection, program)

    def _exec(self, connection: ServerConnection, program: socket.socket) -> None:
        connection.send(bytes([_OUT]))
        if self.stderr:
            connection.send(bytes([_ERR]) + self.stderr)
        reader = threading.Thread(
            target=_feed, args=(connection, program, connection.subprotocol == EXEC[0]), daemon=True
        )
        reader.start()
        with suppress(OSError):
            while data := program.recv(_PIECE):
                connection.send(bytes([_OUT]) + data)
        if self.status is not None:
            connection.send(bytes([_STATUS]) + json.dumps(self.status).encode())
        connection.close()
        reader.join()

    def die(self) -> None:
        """Break every connection off."""
        for connection in self.open:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.die()
        self._server.shutdown()
        self._thread.join()


def _feed(connection: ServerConnection, program: socket.socket, ends_streams: bool) -> None:
    """Hand stdin on, to its end, or the connection's."""
    try:
        for message in connection:
            data = bytes(message, "utf-8") if isinstance(message, str) else message
            if ends_streams and data[:1] == bytes([_END]):
                if len(data) != 2:
                    return
                if data[1] == _IN:
                    program.shutdown(socket.SHUT_WR)
            elif data[:1] == bytes([_IN]):
                program.sendall(data[1:])
    except (ConnectionClosed, OSError):
        return
    finally:
        with suppress(OSError):
            program.shutdown(socket.SHUT_RDWR)


def _forward(connection: ServerConnection, program: socket.socket) -> None:
    """Raw, both ways, until the first end; then both are closed."""

    def upwards() -> None:
        with suppress(ConnectionClosed, OSError):
            for message in connection:
                assert isinstance(message, bytes)
                program.sendall(message)
        with suppress(OSError):
            program.shutdown(socket.SHUT_RDWR)

    reader = threading.Thread(target=upwards, daemon=True)
    reader.start()
    try:
        while data := program.recv(_PIECE):
            connection.send(data)
    finally:
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
        reader.join()


@contextmanager
def stream_server(speaks: Sequence[str] = EXEC[:1]) -> Iterator[StreamServer]:
    server = StreamServer(speaks)
    try:
        yield server
    finally:
        server.close()


def channel(provider: Callable[[], Any]) -> WebSocketChannel:
    """As such a driver's `DRIVER` would name it: of the provider, which has the credentials."""
    return channel_to(provider())


def channel_to(server: Any, offers: Sequence[str] = EXEC) -> WebSocketChannel:
    """The channel to a server's pods."""

    def target(address: Address) -> WebSocketTarget:
        return WebSocketTarget(
            url=server.url + path_of(address),
            subprotocols=tuple(offers),
            headers={"Authorization": f"Bearer {server.token}"},
            proxy=None,
        )

    return WebSocketChannel(target)
