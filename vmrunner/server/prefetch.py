"""Bytes of answers, read in a thread while those before them are sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Final, Protocol

from anyio import CancelScope, CapacityLimiter, to_thread

AT_ONCE: Final = 1 << 20  # bytes, about, that are read before any is sent
AHEAD: Final = 2  # as many wait to be sent: a reader that waits for its turn each time is slower
#: Answers that read ahead at once, each in a thread of its own. Each other one holds what its
#: source has read, and a piece.
ANSWERS: Final = 32
THREADS: Final = 40  # for all others: a store that hangs holds up no other request


class ReadAhead:
    """Reads the pieces of answers. All is called by one event loop."""

    def __init__(self, answers: int = ANSWERS) -> None:
        self._free = answers
        self._own = CapacityLimiter(max(1, answers))
        self._threads = CapacityLimiter(THREADS)

    async def pieces(self, source: Iterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield bytes in order. What `source` raises ends them, and a generator ends with them."""
        ahead = self._free > 0
        self._free -= ahead
        reader: _Reader
        reader = _Ahead(source, self._own) if ahead else _WhenAsked(source, self._threads)
        try:
            while piece := await reader.next():
                yield piece
        finally:
            with CancelScope(shield=True):  # a thread without a waiter counts nowhere
                await reader.stop()
                if isinstance(source, Generator):  # it has a file open
                    await to_thread.run_sync(source.close, limiter=self._threads)
            self._free += ahead


class _Reader(Protocol):
    async def next(self) -> bytes:
        """Return the next piece; none at the end. Raises what the source raised."""

    async def stop(self) -> None:
        """Wait until the reader has left."""


class _Ahead:
    """Reads on by itself, as far as it may."""

    def __init__(self, source: Iterator[bytes], threads: CapacityLimiter) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._found: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._stopped = False
        self._thread = asyncio.create_task(to_thread.run_sync(self._run, limiter=threads))
        self._thread.add_done_callback(self._end)

    async def next(self) -> bytes:
        piece = await self._found.get()
        if isinstance(piece, BaseException):
            raise piece
        self._room.release()
        return piece

    async def stop(self) -> None:
        self._stopped = True
        self._room.release()
        await asyncio.wait([self._thread])

    def _run(self) -> None:
        while (
            self._room.acquire() and not self._stopped and (piece := _read(self._source, AT_ONCE))
        ):
            self._loop.call_soon_threadsafe(self._found.put_nowait, piece)

    def _end(self, thread: asyncio.Task[None]) -> None:
        self._found.put_nowait((not thread.cancelled() and thread.exception()) or b"")


class _WhenAsked:
    """Reads a piece when the one before was taken."""

    def __init__(self, source: Iterator[bytes], threads: CapacityLimiter) -> None:
        self._source = source
        self._threads = threads
        self._coming: set[asyncio.Task[bytes]] = set()

    async def next(self) -> bytes:
        read = to_thread.run_sync(_read, self._source, 1, limiter=self._threads)
        task = asyncio.create_task(read)
        self._coming = {task}
        task.add_done_callback(_take_failure)
        return await asyncio.shield(task)

    async def stop(self) -> None:
        if self._coming:
            await asyncio.wait(self._coming)


def _take_failure(task: asyncio.Task[bytes]) -> None:
    """Take a failure whose reader has left."""
    if not task.cancelled():
        task.exception()


def _read(source: Iterator[bytes], size: int) -> bytes:
    """Return half so many bytes at least, up to one piece more; fewer at the end. A piece that is
    large enough is not copied."""
    found, remaining = [], size
    while remaining > size // 2 and (piece := next(source, None)) is not None:
        found.append(piece)
        remaining -= len(piece)
    return b"".join(found)
