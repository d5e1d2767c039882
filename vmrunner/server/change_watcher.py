"""Changes of builds, for all who follow them: one look for each build, however many follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from anyio import to_thread

INTERVAL: Final = 0.2  # seconds between two looks
Progress = tuple[int, int, str]


class ChangeWatcher:
    """`look` tells how far a build is: events, chunks, state."""

    def __init__(self, look: Callable[[str], Progress]) -> None:
        self._look = look
        self._progress: dict[str, Progress] = {}
        self._waiting: dict[str, list[asyncio.Future[Progress | None]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # the loop holds them weakly

    async def progress(self, build: str) -> Progress:
        """The build's progress now."""
        return await to_thread.run_sync(self._look, build)

    async def changed(self, build: str, since: Progress, timeout: float) -> Progress:
        """Wait until it is further than that, for so many seconds at most. Return how far it is."""
        future: asyncio.Future[Progress | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(build)
        if waiting is None:
            waiting = self._waiting[build] = []
            self._progress[build] = since
            task = self._tasks[build] = asyncio.create_task(self._watch(build))
            task.add_done_callback(lambda done: self._release(build, done))
        elif self._progress[build] != since:
            return self._progress[build]
        waiting.append(future)
        try:
            now = await asyncio.wait_for(asyncio.shield(future), timeout)
            return await self.progress(build) if now is None else now
        except TimeoutError:
            return since
        finally:
            if future in waiting:
                waiting.remove(future)

    async def _watch(self, build: str) -> None:
        """Look again and again, as long as a caller waits."""
        while self._waiting[build]:
            now = await self.progress(build)
            if now != self._progress[build]:
                self._progress[build] = now
                waiting, self._waiting[build] = self._waiting[build], []
                for future in waiting:
                    if not future.done():
                        future.set_result(now)
                return
            await asyncio.sleep(INTERVAL)

    def _release(self, build: str, done: asyncio.Task[None]) -> None:
        """Wake the callers that remain: a look that failed is theirs to find out."""
        _ = done.cancelled() or done.exception()
        self._progress.pop(build, None)
        self._tasks.pop(build, None)
        for future in self._waiting.pop(build, []):
            if not future.done():
                future.set_result(None)
