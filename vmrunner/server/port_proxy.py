"""HTTP and WebSockets between a browser and a service in a VM. Each request has a connection of its
own to the port, is written anew by h11, and its answer read by it: nothing is passed on that one
side could take for two messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import h11
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import WebSocketURI

from vmrunner.errors import VmrunnerError
from vmrunner.server.entered_streams import IDLE, RECHECK, Ending, Pace, StreamEnded
from vmrunner.server.port_headers import Header, from_vm, to_vm
from vmrunner.server.port_stream import PortStream
from vmrunner.server.problems import HttpProblem
from vmrunner.server.websocket_connections import FRAME, PIECES
from vmrunner.session.ssh.channel_io import ConnectionLost

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")

HEAD_TIMEOUT: Final = 300.0  # seconds until an answer's head must have come
HEAD: Final = 64 << 10  # bytes of it
HINTS: Final = 20  # answers of status 1xx before that
#: Bytes that are looked at in one go: pieces of a few bytes each hold up the event loop.
SLICE: Final = 512
SMALL: Final = 1024  # bytes: who sends pieces of less is slowed down
FEW: Final = 8  # pieces of one slice; with more others have their turn
_ABNORMAL: Final = (1005, 1006, 1015)  # close codes that nobody may send


@dataclass(frozen=True, kw_only=True, slots=True)
class PortRequest:
    """A request for a port. `target`: the path and query there. `prefix`: the path below which the
    port lies here. `own_origin`: it has a host name of its own. `idle`: seconds."""

    port: int
    target: bytes
    prefix: str
    own_origin: bool
    scheme: str
    is_readable: bool  # by a page of no origin, which came with a key
    headers: Sequence[Header]
    idle: float
    still_allowed: Callable[[], Awaitable[None]]

    async def watch(self) -> NoReturn:
        """Look at the caller's right for ever, also while nothing comes. Raises StreamEnded,
        VmrunnerError."""
        while True:
            await asyncio.sleep(RECHECK)
            await self.still_allowed()

    @property
    def forwarded(self) -> list[Header]:
        """The headers that the VM gets."""
        found = to_vm(self.headers, self.port, self.prefix, own_origin=self.own_origin)
        return [*found, (b"x-forwarded-proto", self.scheme.encode())]

    def answered(self, headers: Sequence[Header]) -> list[Header]:
        """The headers that the browser gets."""
        host = next((value for name, value in self.headers if name == b"host"), b"")
        request_url = f"http://{host.decode('latin-1')}{self.target.decode('latin-1')}"
        found = from_vm(headers, self.port, self.prefix, request_url, own_origin=self.own_origin)
        if self.is_readable and (b"origin", b"null") in self.headers:
            found.append((b"access-control-allow-origin", b"null"))
        return found


class HttpExchange:
    """One request and its answer."""

    def __init__(self, request: PortRequest, stream: PortStream, method: str) -> None:
        self._request, self._stream = request, stream
        self._method = method
        self._peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        self._until = time.monotonic() + HEAD_TIMEOUT  # for the head
        self._started = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve it. An answer that breaks off half-way ends without its end. Raises HttpProblem and
        VmrunnerError before it has begun."""
        try:
            await self._write(self._head())
            await _first_ended(self._download(send), self._request.watch(), self._upload(receive))
        except (h11.ProtocolError, TimeoutError, VmrunnerError, StreamEnded) as error:
            if self._started:
                return
            if isinstance(error, VmrunnerError) and not isinstance(error, ConnectionLost):
                raise
            raise _bad_gateway(error) from None

    def _head(self) -> h11.Request:
        headers = [*self._request.forwarded, (b"connection", b"close")]
        given = {name.lower(): value for name, value in self._request.headers}
        if b"transfer-encoding" in given:  # and never a length beside it
            headers.append((b"transfer-encoding", b"chunked"))
        elif b"content-length" in given:
            headers.append((b"content-length", given[b"content-length"]))
        return h11.Request(method=self._method, target=self._request.target, headers=headers)

    async def _write(self, event: h11.Event) -> bool:
        data = self._peer.send(event)
        return not data or await self._stream.write(data)

    async def _upload(self, receive: Receive) -> None:
        """Send the body, and then wait until the caller leaves."""
        takes = True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not takes or self._peer.our_state is not h11.SEND_BODY:
                continue  # it answered without it
            if data := message.get("body"):
                takes = await self._write(h11.Data(data=data))
            if takes and not message.get("more_body"):
                takes = await self._write(h11.EndOfMessage())

    async def _download(self, send: Send) -> None:
        pace, hints = Pace(), 0
        while True:
            remaining = max(self._until - time.monotonic(), 0)
            data = await self._stream.read(self._request.idle if self._started else remaining)
            body, pieces = bytearray(), 0
            for start in range(0, max(len(data), 1), SLICE):
                self._peer.receive_data(data[start : start + SLICE])
                before = pieces
                while (event := self._peer.next_event()) is not h11.NEED_DATA:
                    pieces += 1
                    if isinstance(event, h11.Response):
                        await self._start(event, send)
                    elif isinstance(event, h11.Data):
                        body += event.data
                    elif isinstance(event, h11.EndOfMessage):
                        await send({"type": "http.response.body", "body": bytes(body)})
                        return
                    elif isinstance(event, h11.InformationalResponse) and hints < HINTS:
                        hints += 1
                    else:
                        raise h11.RemoteProtocolError("it ended without an answer")
                if pieces - before > FEW:
                    await asyncio.sleep(0)
            if body:
                await send({"type": "http.response.body", "body": bytes(body), "more_body": True})
            await pace.took(max(pieces - len(data) // SMALL, 0))

    async def _start(self, response: h11.Response, send: Send) -> None:
        headers = self._request.answered(list(response.headers))
        self._started = True
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": headers})


async def _first_ended(*ways: Coroutine[Any, Any, T]) -> T:
    """Do them at once, until one has ended. Return or raise what that does."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bad_gateway(error: Exception) -> HttpProblem:
    if isinstance(error, StreamEnded):
        return HttpProblem(401, error.ending.reason)
    if isinstance(error, TimeoutError):
        return HttpProblem(504, "the service in the VM did not answer in time")
    return HttpProblem(502, f"the service in the VM gave no answer of HTTP: {error}"[:300])


class WebSocketRelay:
    """One WebSocket, as two: each side's frames are read and made anew."""

    def __init__(self, request: PortRequest, stream: PortStream, socket: WebSocket) -> None:
        self._request, self._stream, self._socket = request, stream, socket
        forwarded = request.forwarded
        origin = next((value for name, value in forwarded if name == b"origin"), None)
        offered = [Subprotocol(word) for word in socket.scope["subprotocols"]]
        path, _, query = request.target.decode("latin-1").partition("?")
        self._peer = ClientProtocol(
            WebSocketURI(False, "localhost", request.port, path, query),
            origin=None if origin is None else Origin(origin.decode("latin-1")),
            subprotocols=offered or None,
            max_size=FRAME,
        )
        self._opening = self._peer.connect()
        for name, value in forwarded:
            if name not in (b"host", b"origin"):
                self._opening.headers[name.decode("ascii")] = value.decode("latin-1")
        self._pieces: list[bytes] = []
        self._is_text = False
        self._pace = Pace()

    async def run(self) -> Ending:
        """Carry it to its end. Raises HttpProblem where the service takes none."""
        self._peer.send_request(self._opening)
        await self._flush()
        response = await self._answer()
        chosen = response.headers.get("Sec-WebSocket-Protocol")
        headers = self._request.answered(
            [(name.lower().encode(), value.encode("latin-1", "replace"))
             for name, value in response.headers.raw_items()]
        )  # fmt: skip
        kept = [
            pair for pair in headers if not pair[0].startswith((b"sec-websocket-", b"content-"))
        ]
        await self._socket.accept(chosen, kept)
        try:
            return await _first_ended(self._down(), self._up(), self._request.watch())
        except StreamEnded as error:
            return error.ending
        except WebSocketDisconnect:
            return Ending(None)
        except TimeoutError:
            return Ending(IDLE, f"nothing came for {self._request.idle:.0f} s")
        except (VmrunnerError, WebSocketException) as error:
            return Ending(1011, str(error))

    async def _answer(self) -> Response:
        until = time.monotonic() + HEAD_TIMEOUT
        while True:
            try:
                data = await self._stream.read(max(until - time.monotonic(), 0))
            except (TimeoutError, ConnectionLost) as failure:
                raise _bad_gateway(failure) from None
            if data:
                self._peer.receive_data(data)
            else:
                self._peer.receive_eof()
            for event in self._peer.events_received():
                if isinstance(event, Response) and self._peer.handshake_exc is None:
                    return event
            error = self._peer.handshake_exc
            if error is not None or not data:
                status = error.__class__.__name__ if isinstance(error, InvalidHandshake) else error
                raise HttpProblem(502, f"the service in the VM took no WebSocket: {status}")

    async def _flush(self) -> bool:
        data = b"".join(self._peer.data_to_send())
        return not data or await self._stream.write(data)

    async def _down(self) -> Ending:
        while True:
            await self._take_all()
            if self._peer.close_rcvd is not None or self._peer.parser_exc is not None:
                close = self._peer.close_rcvd
                code = close.code if close is not None else 1002
                reason = close.reason if close is not None else "the service broke the protocol"
                return Ending(1000 if code in _ABNORMAL else code, reason)
            data = await self._stream.read(self._request.idle)
            if not data:
                return Ending(1001, "the service has ended")
            for start in range(0, len(data), SLICE):
                self._peer.receive_data(data[start : start + SLICE])
                await self._pace.took(await self._take_all())

    async def _take_all(self) -> int:
        """Take the frames that came; return how many small ones those were."""
        small = 0
        for event in self._peer.events_received():
            if isinstance(event, Frame):
                small += len(event.data) < SMALL
                await self._take(event)
        await self._flush()  # pongs
        return small

    async def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._pieces, self._is_text = [], frame.opcode is Opcode.TEXT
        if len(self._pieces) >= PIECES:
            raise StreamEnded(Ending(1009, "a message of too many pieces"))
        self._pieces.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._pieces = b"".join(self._pieces), []
        if not self._is_text:
            await self._socket.send_bytes(data)
            return
        try:
            await self._socket.send_text(data.decode())
        except UnicodeDecodeError:
            raise StreamEnded(Ending(1007, "the service sent a text that is no UTF-8")) from None

    async def _up(self) -> Ending:
        while True:
            message: dict[str, Any] = dict(await self._socket.receive())
            if message["type"] == "websocket.disconnect":
                code = int(message.get("code") or 1000)
                self._peer.send_close(1000 if code in _ABNORMAL else code)
                await self._flush()
                return Ending(None)
            if (data := message.get("bytes")) is not None:
                self._peer.send_binary(data)
            else:
                self._peer.send_text(str(message.get("text") or "").encode())
            if not await self._flush():
                return Ending(1001, "the service has ended")


def scheme_of(scope: Scope, url: str) -> str:
    """The scheme by which a browser came here: behind TLS as the configuration says."""
    if url:
        return url.partition("://")[0]
    return "https" if scope["scheme"] in ("https", "wss") else "http"
