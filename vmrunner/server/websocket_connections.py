"""WebSockets of callers, with bounds where uvicorn has none: frames that wait, pieces of one
message, answers to pings that nobody takes, and time in which nothing is taken."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from vmrunner.server.connections import STALLED

FRAME: Final = 1 << 20  # bytes of one message
PING: Final = 20.0  # seconds between two pings, and until a pong must have come
WAITING: Final = 1024  # messages of one read that wait: who sends more sends them byte by byte
PIECES: Final = 1024  # pieces of one message, of which the empty ones count for no size
#: A close code: what was sent breaks a bound.
POLICY: Final = 1008


class CallerWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. While its caller takes nothing, nothing is read from it."""

    _stalled: asyncio.TimerHandle | None = None

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= PIECES:
            self._refuse(f"a message of more than {PIECES} pieces")
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.queue.qsize() >= WAITING:
            self._refuse(f"more than {WAITING} small messages at once")
            return
        super().send_receive_event_to_app()

    def _refuse(self, why: str) -> None:
        self.frames = []
        if not self.close_sent and not self.transport.is_closing():
            self.conn.fail(POLICY, why)
            self.handle_parser_exception()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()  # each ping has an answer
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
        self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def keepalive_timeout(self) -> None:
        """Nobody reads a pong while what came before it waits to be taken."""
        if self.read_paused:
            self.pong_timer = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    async def receive(self) -> Any:
        message = await super().receive()
        if not self.writable.is_set() and not self.disconnected:
            self.transport.pause_reading()
        return message
