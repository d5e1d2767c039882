"""Pages of news about builds, each made once for all who follow a build at the same place."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi.sse import format_sse_event

KEPT_BYTES: Final = 8 << 20  # bytes of pages that are kept, of all builds together
OWN: Final = 1 << 10  # bytes of a page beside what it holds

Place = TypeVar("Place", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NewsPage(Generic[Place]):
    """Server-sent events as bytes, and the place after them, which holds `begun` bytes itself."""

    data: bytes
    after: Place
    begun: int = 0

    @property
    def size(self) -> int:
        return OWN + len(self.data) + self.begun


def event_bytes(kind: str, document: Mapping[str, Any], number: int | None = None) -> bytes:
    """Return one server-sent event."""
    data = json.dumps(document, ensure_ascii=False)
    return format_sse_event(data_str=data, event=kind, id=None if number is None else str(number))


class SharedPages:
    """The pages that were made last, of builds that are followed. For one event loop."""

    def __init__(self, most: int = KEPT_BYTES, threads: CapacityLimiter | None = None) -> None:
        """`threads`: in which pages are made; default: those of everybody."""
        self.threads = threads
        self._most = most
        self._size = 0
        self._kept: OrderedDict[Hashable, NewsPage[Any]] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[NewsPage[Any] | None]] = {}
        self._followers: Counter[str] = Counter()

    @contextmanager
    def following(self, build: str) -> Iterator[None]:
        """Count one who follows a build. Of a build without followers nothing is kept: its log
        may be removed."""
        self._followers[build] += 1
        try:
            yield
        finally:
            self._followers[build] -= 1
            if not self._followers[build]:
                del self._followers[build]
                for key in [key for key in self._kept if key[0] == build]:  # type: ignore[index]
                    self._size -= self._kept.pop(key).size

    async def page(
        self, build: str, place: Place, make: Callable[[], NewsPage[Place] | None]
    ) -> NewsPage[Place] | None:
        """Return the page at a place; `make` makes it in a thread, unless another follower's did or
        does. None: there was none yet when this was called."""
        key = (build, place)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        task = self._making.get(key)
        if task is not None:
            found = await asyncio.shield(task)
            if found is not None:
                return found
            task = self._making.get(key)  # the former looked before this call
        if task is None:
            task = self._making[key] = asyncio.create_task(self._made(key, make))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _made(
        self, key: tuple[str, Hashable], make: Callable[[], NewsPage[Any] | None]
    ) -> NewsPage[Any] | None:
        try:
            page = await to_thread.run_sync(make, limiter=self.threads)
        finally:
            del self._making[key]
        if page is not None and key[0] in self._followers:
            self._kept[key] = page
            self._size += page.size
            while self._size > self._most:
                _, old = self._kept.popitem(last=False)
                self._size -= old.size
        return page
