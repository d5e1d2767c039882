"""Connections of callers: so many at most, and none where nothing comes or nothing is taken."""

from __future__ import annotations

import asyncio
import resource
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD: Final = 20.0  # seconds for the head of a request, from its first byte or the connection on
STALLED: Final = 60.0  # seconds in which a caller takes nothing of what it is sent


def most_connections() -> int:
    """Most connections that may be open at once: the engine in this process needs files too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft * 3 // 4 if soft != resource.RLIM_INFINITY else 1 << 16


class CallerConnection(H11Protocol):
    """One connection. uvicorn waits for ever for a request's head, and for a reader."""

    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waits_for_head():
            self._expect_head()
        elif self._head is not None:
            self._head.cancel()
            self._head = None

    def _waits_for_head(self) -> bool:
        return not self._upgraded and (self.cycle is None or self.cycle.response_complete)

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD, self._give_up_head)

    def _give_up_head(self) -> None:
        self._head = None
        if self._waits_for_head():
            self.transport.abort()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._upgraded = True  # another protocol has the connection from now on
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
