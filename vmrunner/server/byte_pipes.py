"""Bytes between who pushes and who pulls: each in a thread of its own, with little in between."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from anyio import CapacityLimiter, to_thread

DEPTH: Final = 8  # pieces that wait
LOOK: Final = 0.5  # seconds between looks whether the other side has left


class BrokenOff(Exception):
    """The other side has left before the end."""


class BytePipe:
    """Pieces in order. `None` is their end."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes | None] = queue.Queue(DEPTH)
        self._reader_gone = threading.Event()

    def put(self, data: bytes | None) -> None:
        """Add a piece. Raises BrokenOff when its reader has left."""
        while not self._reader_gone.is_set():
            try:
                return self._pieces.put(data, timeout=LOOK)
            except queue.Full:
                continue
        raise BrokenOff

    def get(self) -> bytes | None:
        """Take a piece. Raises BrokenOff when no more will come, and that was not the end."""
        while True:
            try:
                return self._pieces.get(timeout=LOOK)
            except queue.Empty:
                if self._reader_gone.is_set():
                    raise BrokenOff from None

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self.get()) is not None:
            yield piece

    def leave(self) -> None:
        """Take no more, or give no more."""
        self._reader_gone.set()


class _Mover(threading.Thread):
    """The other side of a pipe. What its work raised is in `failed`."""

    def __init__(self, pipe: BytePipe, work: Callable[[], object]) -> None:
        super().__init__(name="sandbox file", daemon=True)
        self._pipe = pipe
        self._work = work
        self.failed: list[BaseException] = []

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised by who is at this side
            self.failed.append(error)
        finally:
            self._pipe.leave()


async def pulled(
    push: Callable[[Callable[[bytes], object]], object],
) -> AsyncIterator[bytes]:
    """Bytes that `push` hands to its argument, as they come. What it raises before the first piece
    is raised by this call; a later error cuts the rest off. Who takes no more only has to let go
    of it."""
    limiter = CapacityLimiter(1)  # its own: no stream waits for another's thread
    pipe = BytePipe()

    def push_all() -> None:
        push(pipe.put)
        pipe.put(None)

    mover = _Mover(pipe, push_all)

    async def take() -> bytes | None:
        try:
            return await to_thread.run_sync(pipe.get, limiter=limiter, abandon_on_cancel=True)
        except BrokenOff:
            raise mover.failed[0] from None

    async def pieces() -> AsyncIterator[bytes]:
        try:
            mover.start()
            piece = await take()
            yield b""  # it has begun: from here on also its end is seen to
            while piece is not None:
                yield piece
                piece = await take()
        finally:
            pipe.leave()

    found = pieces()
    await anext(found)
    return found


async def pushed(
    parts: AsyncIterator[bytes],
    take: Callable[[Iterator[bytes]], object],
) -> None:
    """Let `take` iterate over what comes. Raises what either raises."""
    limiter = CapacityLimiter(1)
    pipe = BytePipe()
    mover = _Mover(pipe, lambda: take(iter(pipe)))
    mover.start()
    try:
        async for part in parts:
            await to_thread.run_sync(pipe.put, part, limiter=limiter)
        await to_thread.run_sync(pipe.put, None, limiter=limiter)
    except BrokenOff:
        pass  # `take` failed, or needs no more
    except BaseException:
        pipe.leave()
        raise
    await to_thread.run_sync(mover.join, limiter=limiter)
    if mover.failed:
        raise mover.failed[0]
