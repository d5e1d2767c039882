"""A connection to a port, for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from vmrunner.server.entered_streams import FULL, LOOK, LoopBell
from vmrunner.services.entering import refusal
from vmrunner.session.ssh.port_channel import PortChannel

T = TypeVar("T")


class PortStream:
    """Bytes both ways, in bounded memory. What waits for the VM does so in `threads`."""

    def __init__(self, channel: PortChannel, threads: CapacityLimiter) -> None:
        self._channel, self._threads = channel, threads
        self._bell = LoopBell()
        channel.ring(self._bell)
        self.read_bytes = self.written_bytes = 0

    async def read(self, seconds: float) -> bytes:
        """Bytes, once there are some; b"" at their end. Raises TimeoutError, NotFound where nothing
        listens, Conflict, ConnectionLost."""
        until = asyncio.get_running_loop().time() + seconds
        while True:
            data = await self._ask(self._channel.take)
            if data:
                self.read_bytes += len(data)
                return data
            if data is not None:
                error = refusal(self._channel)
                if error is not None:
                    raise error
                return b""
            remaining = until - asyncio.get_running_loop().time()
            if remaining <= 0:
                raise TimeoutError
            if not await self._bell.wait(min(remaining, LOOK)):
                await self._ask(self._channel.check)

    async def write(self, data: bytes) -> bool:
        """Send all of it; False: the port has ended."""
        view, pause = memoryview(data), FULL[0]
        while view:
            piece = view
            sent = await self._ask(lambda: self._channel.send(piece))  # noqa: B023 - awaited
            if sent is None:
                return False
            self.written_bytes += sent
            view = view[sent:]
            if not sent:
                await asyncio.sleep(pause)
            pause = FULL[0] if sent else min(pause * 2, FULL[1])
        return True

    async def _ask(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)
