"""A server's end of one WebSocket, on a connection over which HTTP was spoken before. One thread
reads and writes: a TLS connection has no more than one user."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Final

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

#: Bytes that wait to be sent before nothing more is read from the other side.
_FULL: Final = 1 << 20
_PIECE: Final = 1 << 15  # as io.Copy has it


class WebSocket:
    """One connection; `open` until either side has closed it."""

    def __init__(self, handler: BaseHTTPRequestHandler, chosen: str) -> None:
        """Answer the upgrade; `chosen` is its subprotocol, empty for none."""
        self._socket: socket.socket = handler.connection
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol(chosen)] if chosen else None,
            select_subprotocol=(lambda _, __: Subprotocol(chosen)) if chosen else None,
            max_size=None,
        )
        lines = [handler.requestline, *(f"{key}: {text}" for key, text in handler.headers.items())]
        self._protocol.receive_data("\r\n".join([*lines, "", ""]).encode("iso-8859-1"))
        (request,) = self._protocol.events_received()
        assert isinstance(request, Request)
        self._protocol.send_response(self._protocol.accept(request))
        self._out = b"".join(self._protocol.data_to_send())
        self._message = b""
        self._socket.setblocking(False)
        self.open = self._protocol.state is State.OPEN

    def send(self, data: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._out += b"".join(self._protocol.data_to_send())

    def ping(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"keep alive")
            self._out += b"".join(self._protocol.data_to_send())

    def farewell(self) -> None:
        """Send the frame that closes it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._out += b"".join(self._protocol.data_to_send())

    @property
    def full(self) -> bool:
        """True while more waits to be sent than should."""
        return len(self._out) > _FULL

    @property
    def waiting(self) -> bool:
        """True while something waits to be sent."""
        return bool(self._out)

    def fileno(self) -> int:
        return self._socket.fileno()

    def flush(self) -> None:
        """Write what can be written now."""
        while self._out:
            try:
                sent = self._socket.send(self._out[:_PIECE])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                self._lost()
                return
            self._out = self._out[sent:]

    def messages(self) -> Iterator[bytes]:
        """Messages that have come by now."""
        while self.open:
            try:
                data = self._socket.recv(1 << 16)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._protocol.receive_data(data)
            self._out += b"".join(self._protocol.data_to_send())
            for event in self._protocol.events_received():
                yield from self._frame(event)
            if self._protocol.state is not State.OPEN:
                self.open = False

    def finish(self) -> None:
        """Send what waits, for a while, and hang up."""
        for _ in range(100):
            self.flush()
            if not self._out:
                break
            ready([], [self._socket.fileno()], 0.1)

    def _frame(self, event: object) -> Iterator[bytes]:
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            self._message += bytes(event.data)
            if event.fin:
                message, self._message = self._message, b""
                yield message

    def _lost(self) -> None:
        self.open = False
        self._out = b""


def ready(reads: Sequence[int], writes: Sequence[int], seconds: float) -> set[int]:
    """The descriptors that can be read or written now, or within so many seconds."""
    poll = select.poll()
    masks: dict[int, int] = {}
    for numbers, mask in ((reads, select.POLLIN), (writes, select.POLLOUT)):
        for number in numbers:
            masks[number] = masks.get(number, 0) | mask
    for number, mask in masks.items():
        poll.register(number, mask)
    return {number for number, _ in poll.poll(seconds * 1000)}
