"""Answers of hostile services, which hold up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import anyio
import pytest
from websockets.server import ServerProtocol

from vmrunner.server import entered_streams, port_proxy
from vmrunner.server.port_proxy import HttpExchange, PortRequest, WebSocketRelay

TURNS = 15  # that others have meanwhile, at least


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entered_streams, "FRAMES_SPAN", 0.0)


class Stream:
    """A port that sends these bytes, and then ends."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces]
        self.written = b""

    async def read(self, seconds: float) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes) -> bool:
        self.written += data
        return True


class Socket:
    """A browser's WebSocket, which says nothing."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {"subprotocols": []}
        self.messages = 0

    async def accept(self, *_: Any) -> None:
        pass

    async def send_bytes(self, data: bytes) -> None:
        self.messages += 1

    async def receive(self) -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}


async def allowed() -> None:
    pass


def request() -> PortRequest:
    return PortRequest(
        port=80, target=b"/", prefix="", own_origin=True, scheme="http", is_readable=False,
        headers=[(b"host", b"h")], idle=60.0, still_allowed=allowed,
    )  # fmt: skip


async def turns(work: Awaitable[object]) -> int:
    """How often another task had its turn while this was done."""
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await work
    task.cancel()
    return count


def exchanged(*pieces: bytes) -> tuple[int, list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}

    async def run() -> int:
        stream: Any = Stream(*pieces)
        return await turns(HttpExchange(request(), stream, "GET").run(receive, send))

    return anyio.run(run), sent


def test_chunks_of_a_byte_let_others_go_on() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    count, sent = exchanged(head, b"1\r\na\r\n" * 10_000, b"0\r\n\r\n")
    assert count > TURNS
    assert b"".join(message.get("body", b"") for message in sent) == b"a" * 10_000
    assert len(sent) < 10, "they go on together"


@pytest.mark.parametrize("hints", [port_proxy.HINTS, port_proxy.HINTS + 1])
def test_hints_without_end_are_no_answer(hints: int) -> None:
    answer = b"HTTP/1.1 103 Early\r\n\r\n" * hints + b"HTTP/1.1 204 None\r\n\r\n"
    if hints == port_proxy.HINTS:
        assert exchanged(answer)[1][0]["status"] == 204
        return
    with pytest.raises(port_proxy.HttpProblem, match="no answer of HTTP"):
        exchanged(answer)


def test_empty_frames_let_others_go_on() -> None:
    socket: Any = Socket()

    class Service(Stream):
        async def write(self, data: bytes) -> bool:
            if not self.written:
                protocol = ServerProtocol()
                protocol.receive_data(data)
                (opening,) = protocol.events_received()
                protocol.send_response(protocol.accept(opening))  # type: ignore[arg-type]
                self.pieces = [b"".join(protocol.data_to_send()), b"\x82\x00" * 10_000]
            return await super().write(data)

    async def run() -> int:
        service: Any = Service()
        return await turns(WebSocketRelay(request(), service, socket).run())

    assert anyio.run(run) > TURNS
    assert socket.messages == 10_000
