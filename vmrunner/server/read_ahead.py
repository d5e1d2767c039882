"""Bytes of answers, read in a thread while those before them are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Final

from anyio import CancelScope, CapacityLimiter, to_thread

AT_ONCE: Final = 1 << 20  # bytes, about, that are read before any is sent
#: Answers that read ahead at once. Each other one holds what its source has read, and a piece.
ANSWERS: Final = 32
THREADS: Final = 40  # for all of them: a store that hangs holds up nobody else's request


class ReadAhead:
    """Reads the pieces of answers. All is called by one event loop."""

    def __init__(self, answers: int = ANSWERS) -> None:
        self._free = answers
        self._threads = CapacityLimiter(THREADS)

    async def pieces(self, source: Iterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield bytes in order. What `source` raises ends them, and a generator ends with them."""
        ahead = self._free > 0
        self._free -= ahead
        coming = self._begin(source, ahead=ahead)
        try:
            while piece := await asyncio.shield(coming):
                if ahead:
                    coming = self._begin(source, ahead=True)
                yield piece
                if not ahead:
                    coming = self._begin(source, ahead=False)
        finally:
            with CancelScope(shield=True):  # a thread that nobody waits for counts nowhere
                await asyncio.wait([coming])
                if isinstance(source, Generator):  # it has a file open
                    await to_thread.run_sync(source.close, limiter=self._threads)
            self._free += ahead

    def _begin(self, source: Iterator[bytes], *, ahead: bool) -> asyncio.Task[bytes]:
        size = AT_ONCE if ahead else 1
        read = to_thread.run_sync(_read, source, size, limiter=self._threads)
        task = asyncio.create_task(read)
        task.add_done_callback(_take_failure)
        return task


def _take_failure(task: asyncio.Task[bytes]) -> None:
    """Take a failure that nobody waits for any more: its reader has left."""
    if not task.cancelled():
        task.exception()


def _read(source: Iterator[bytes], size: int) -> bytes:
    """Return half so many bytes at least, up to one piece more; fewer at the end. A piece that is
    large enough is not copied."""
    found, left = [], size
    while left > size // 2 and (piece := next(source, None)) is not None:
        found.append(piece)
        left -= len(piece)
    return b"".join(found)
