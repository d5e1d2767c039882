"""Ports over a WebSocket. KubeVirt's: raw, and at the first end of either side both are closed
(kubevirt pkg/virt-api/rest/streamer.go). A pod's: two streams a port, 0 data and 1 errors, each
with the port first (kubelet's cri/streaming/portforward/websocket.go); nothing tells that one way
has ended."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Final

from vmrunner_localclouds.kube.websocket import WebSocket, ready

KUBEVIRT: Final = "plain.kubevirt.io"
POD: Final = "v4.channel.k8s.io"
_PIECE: Final = 1 << 15
_PING: Final = 1.0  # seconds


class RawStream:
    """Bytes as they are, between a WebSocket and a connection that is there already."""

    def __init__(self, chosen: str, far: socket.socket, prefix: bytes = b"") -> None:
        self._chosen = chosen
        self._far = far
        self._prefix = prefix  # of each message
        self._cut = threading.Event()

    def cut(self) -> None:
        """Break the connection off."""
        self._cut.set()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        websocket = WebSocket(handler, self._chosen)
        try:
            self._carry(websocket)
        finally:
            self._far.close()

    def opening(self, websocket: WebSocket) -> None:
        """Send what comes before the bytes."""

    def _carry(self, websocket: WebSocket) -> None:
        self.opening(websocket)
        pinged, upwards, ended = time.monotonic(), b"", False
        self._far.setblocking(False)
        while websocket.open and not self._cut.is_set() and not ended:
            near, far = websocket.fileno(), self._far.fileno()
            reads = [near] + ([] if websocket.full else [far])
            writes = ([near] if websocket.waiting else []) + ([far] if upwards else [])
            if far in ready(reads, writes, _PING):
                data = _received(self._far)
                ended = data == b""
                if data:
                    websocket.send(self._prefix + data)
            if len(upwards) < _PIECE:
                for message in websocket.messages():
                    upwards += self._payload(message)
            if upwards:
                try:
                    upwards = upwards[self._far.send(upwards) :]
                except BlockingIOError:
                    pass
                except OSError:
                    ended = True
            if time.monotonic() - pinged >= _PING:
                websocket.ping()
                pinged = time.monotonic()
            websocket.flush()
        websocket.finish()

    def _payload(self, message: bytes) -> bytes:
        if not self._prefix:
            return message
        return message[1:] if message[:1] == self._prefix else b""


class PodPort(RawStream):
    """One port of a pod. `dial` raises OSError with the words of the node."""

    def __init__(self, port: int, dial: Callable[[], socket.socket]) -> None:
        near, far = socket.socketpair()
        near.close()
        super().__init__(POD, far, prefix=b"\0")
        self._port = port.to_bytes(2, "little")
        self._dial = dial

    def opening(self, websocket: WebSocket) -> None:
        websocket.send(b"\0" + self._port)
        websocket.send(b"\1" + self._port)
        try:
            dialled = self._dial()
        except OSError as error:
            text = f"error forwarding port {int.from_bytes(self._port, 'little')}: {error}"
            websocket.send(b"\1" + text.encode())
            return
        self._far.close()
        self._far = dialled


class ConsoleStream:
    """A console's output so far; what is typed goes nowhere. It stays until the client goes."""

    def __init__(self, chosen: str, read: Callable[[], bytes]) -> None:
        self._chosen = chosen
        self._read = read
        self._cut = threading.Event()

    def cut(self) -> None:
        self._cut.set()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        websocket = WebSocket(handler, self._chosen)
        shown = 0
        while websocket.open and not self._cut.is_set():
            output = self._read()
            if len(output) > shown:
                websocket.send(output[shown:])
                shown = len(output)
            for _ in websocket.messages():
                pass
            websocket.flush()
            ready([websocket.fileno()], [], 0.2)


def _received(sock: socket.socket) -> bytes | None:
    """Bytes that are there; empty: it has ended; None: there are none now."""
    try:
        return sock.recv(_PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""
