"""Connections to VMs whose ports are spoken to: one for all ports of a build, kept for a while."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, CapacityLimiter, to_thread

from vmrunner.server.entry_threads import EntryThreads

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord
    from vmrunner.services.entering import Entrance, PortConnection
    from vmrunner.session.ssh.port_channel import PortChannel

KEPT_SECONDS: Final = 30.0  # seconds from the last use of a connection to its end


class _Shared:
    """The connection to one build's VM. `users`: how many have it or wait for it."""

    def __init__(self) -> None:
        self.users = 0
        self.dialing = asyncio.Lock()
        self.connection: PortConnection | None = None
        self.closing: asyncio.TimerHandle | None = None


class PortConnections:
    """Connections of one event loop. What waits for a VM does so in `threads`."""

    def __init__(self, threads: EntryThreads) -> None:
        self._threads = threads
        self._shared: dict[str, _Shared] = {}

    @asynccontextmanager
    async def port(self, entrance: Entrance, port: int) -> AsyncIterator[PortChannel]:
        """A connection to a port of a build, over the one to its VM. Raises Conflict,
        SandboxOver."""
        shared = self._shared.setdefault(entrance.build, _Shared())
        threads = self._threads.of(entrance.build)
        shared.users += 1
        if shared.closing is not None:
            shared.closing.cancel()
            shared.closing = None
        try:
            row, _ = await to_thread.run_sync(entrance.current)
            connection = await self._connected(shared, entrance, row, threads)
            channel = await to_thread.run_sync(connection.port, row, port, limiter=threads)
            try:
                yield channel
            finally:
                with CancelScope(shield=True):
                    await to_thread.run_sync(channel.close, limiter=threads)
        finally:
            shared.users -= 1
            if not shared.users:
                later = asyncio.get_running_loop().call_later
                shared.closing = later(KEPT_SECONDS, self._forget, entrance.build)

    async def _connected(
        self, shared: _Shared, entrance: Entrance, row: BuildRecord, threads: CapacityLimiter
    ) -> PortConnection:
        async with shared.dialing:
            if shared.connection is not None and shared.connection.serves(row):
                return shared.connection
            former, shared.connection = shared.connection, None
            if former is not None:
                await to_thread.run_sync(former.close, limiter=threads)
            shared.connection = await to_thread.run_sync(entrance.connect, limiter=threads)
            return shared.connection

    def _forget(self, build: str) -> None:
        connection = self._shared.pop(build).connection
        if connection is not None:  # which may wait for its VM
            threading.Thread(target=connection.close, name="ports", daemon=True).start()
