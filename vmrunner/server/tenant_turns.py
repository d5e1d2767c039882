"""Turns of tenants at what costs the server's processor: while several ask for lists, each has one
under way, and then rests for as long as that took. So whoever asks without end has half at most,
and who asks now and then has the rest. A tenant that is alone has as many as it likes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

#: Seconds for which a tenant counts as one that asks, since it asked last.
RECENT: Final = 1.0
#: Seconds of a turn, and of a rest: what takes longer waits for something, such as a database.
LONGEST_TURN: Final = 0.25


class _Timer(Protocol):
    def cancel(self) -> None: ...


def _later(seconds: float, work: Callable[[], None]) -> _Timer:
    return asyncio.get_running_loop().call_later(seconds, work)


class _Line:
    """The turns of one tenant: how many are under way, and who waits for one."""

    def __init__(self) -> None:
        self.busy = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class TenantTurns:
    """Turns of all tenants, for one event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], _Timer] = _later,
    ) -> None:
        self._clock, self._later = clock, later
        self._lines: dict[str, _Line] = {}
        self._last_request: dict[str, float] = {}  # when each asked last; the latest comes last

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for the tenant's turn, and have it."""
        self._note(tenant)
        line = self._lines.setdefault(tenant, _Line())
        if line.busy and self._others_ask(tenant):
            await self._given(tenant, line)
        else:
            line.busy += 1
        began, ended = self._clock(), False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._end(tenant, line)

        timer = self._later(LONGEST_TURN, end)
        try:
            yield
        finally:
            timer.cancel()
            if not ended and self._others_ask(tenant):
                self._later(min(self._clock() - began, LONGEST_TURN), end)
            else:
                end()

    def _note(self, tenant: str) -> None:
        now = self._clock()
        self._last_request.pop(tenant, None)
        for name in [name for name, at in self._last_request.items() if now - at >= RECENT]:
            del self._last_request[name]
        self._last_request[tenant] = now

    def _others_ask(self, tenant: str) -> bool:
        latest = next((name for name in reversed(self._last_request) if name != tenant), None)
        return latest is not None and self._clock() - self._last_request[latest] < RECENT

    async def _given(self, tenant: str, line: _Line) -> None:
        """Wait until one that ends leaves its turn."""
        place = asyncio.get_running_loop().create_future()
        line.waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place in line.waiting:
                line.waiting.remove(place)
            elif not place.cancelled():  # it was given just now
                self._end(tenant, line)
            raise

    def _end(self, tenant: str, line: _Line) -> None:
        """End one turn. Of those that began while the tenant was alone none is followed by another
        until the last has ended."""
        line.busy -= 1
        while line.waiting and (not line.busy or not self._others_ask(tenant)):
            place = line.waiting.popleft()
            if not place.done():
                line.busy += 1
                place.set_result(None)
        if not line.busy:
            del self._lines[tenant]
