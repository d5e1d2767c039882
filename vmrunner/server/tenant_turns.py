"""Turns of tenants at lists, which cost the server's processor: a few are made at once, of all
tenants, who take turns. So whoever asks for many waits for those, and others for a few."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from starlette.requests import ClientDisconnect

from vmrunner.lib import jitter
from vmrunner.server.problems import HttpProblem

UNDER_WAY: Final = 4  # lists of all tenants at once
WAITING: Final = 256  # of one tenant beside them
#: Seconds until one more is told so, up to twice as many: who asks without end waits longer than in
#: line, and refused requests do not come back all at once.
REFUSAL: Final = 5.0
#: Seconds of a turn: what takes longer waits for something, such as a database that is silent.
LONGEST_TURN: Final = 10.0


class _Timer(Protocol):
    def cancel(self) -> None: ...


def _later(seconds: float, work: Callable[[], None]) -> _Timer:
    return asyncio.get_running_loop().call_later(seconds, work)


class TenantTurns:
    """Turns of all tenants, for one event loop."""

    def __init__(self, later: Callable[[float, Callable[[], None]], _Timer] = _later) -> None:
        self._later = later
        self._busy = 0
        #: Who waits, of each tenant; the first tenant is next. None waits while a turn is free.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str, gone: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Wait for the tenant's turn, and have it. `gone`: returns once the caller has hung up.
        Raises ClientDisconnect then, and HttpProblem where too many of the tenant wait already;
        that too takes its time."""
        if self._busy < UNDER_WAY:
            self._busy += 1
        else:
            await self._given(tenant, gone)
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._end()

        timer = self._later(LONGEST_TURN, end)
        try:
            yield
        finally:
            timer.cancel()
            end()

    async def _given(self, tenant: str, gone: Callable[[], Awaitable[None]]) -> None:
        """Wait until one that ends leaves its turn."""
        line = self._lines.setdefault(tenant, deque())
        if len(line) >= WAITING:
            await asyncio.sleep(jitter.between(REFUSAL, 2 * REFUSAL))
            raise HttpProblem(
                429,
                f"{WAITING} lists of this tenant wait for their turn",
                fix="try again later, or ask for fewer at once",
                headers={"Retry-After": "5"},
            )
        place = asyncio.get_running_loop().create_future()
        line.append(place)
        leaving, stays = asyncio.ensure_future(gone()), False
        try:
            await asyncio.wait((place, leaving), return_when=asyncio.FIRST_COMPLETED)
            stays = not leaving.done()
        finally:
            leaving.cancel()
            if not stays and place.done():
                self._end()  # it was given just now
            elif not stays:
                self._leave(tenant, place)
        if not stays:
            await leaving
            raise ClientDisconnect

    def _leave(self, tenant: str, place: asyncio.Future[None]) -> None:
        line = self._lines[tenant]
        line.remove(place)
        if not line:
            del self._lines[tenant]

    def _end(self) -> None:
        """End one turn: it goes to the next tenant, which stands behind all others then."""
        if not self._lines:
            self._busy -= 1
            return
        tenant = next(iter(self._lines))
        line = self._lines.pop(tenant)
        line.popleft().set_result(None)
        if line:
            self._lines[tenant] = line
