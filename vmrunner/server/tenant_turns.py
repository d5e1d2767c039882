"""Turns of tenants at lists, which cost the server's processor: a few are made at once, of all
tenants, who take turns. A tenant beside others has one at a time and rests after it, so that a
flood takes half of the time at most."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
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
#: Seconds for which a tenant that asked counts as there: pages ask every three.
BESIDE: Final = 10.0
#: Seconds of a rest. It lasts as long as the list took; a slow database is no reason for more.
LONGEST_REST: Final = 1.0


class _Timer(Protocol):
    def cancel(self) -> None: ...


def _later(seconds: float, work: Callable[[], None]) -> _Timer:
    return asyncio.get_running_loop().call_later(seconds, work)


class TenantTurns:
    """Turns of all tenants, for one event loop."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], _Timer] = _later,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._later, self._clock = later, clock
        self._busy = Counter[str]()
        self._resting = set[str]()
        #: When each tenant asked last, in that order.
        self._last_requests: dict[str, float] = {}
        #: Who waits, of each tenant; the first tenant is next.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str, gone: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Wait for the tenant's turn, and have it. `gone`: returns once the caller has hung up.
        Raises ClientDisconnect then, and HttpProblem where too many of the tenant wait already;
        that too takes its time."""
        self._note(tenant)
        if tenant not in self._lines and self._may_begin(tenant):
            self._busy[tenant] += 1
        else:
            await self._given(tenant, gone)
        began, ended = self._clock(), False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._end(tenant, self._clock() - began)

        timer = self._later(LONGEST_TURN, end)
        try:
            yield
        finally:
            timer.cancel()
            end()

    def _note(self, tenant: str) -> None:
        """Note that the tenant asks, and forget those who did so long ago."""
        now = self._clock()
        self._last_requests.pop(tenant, None)
        while self._last_requests and next(iter(self._last_requests.values())) < now - BESIDE:
            del self._last_requests[next(iter(self._last_requests))]
        self._last_requests[tenant] = now

    def _is_beside_others(self, tenant: str) -> bool:
        since = self._clock() - BESIDE
        last = next((name for name in reversed(self._last_requests) if name != tenant), None)
        return last is not None and self._last_requests[last] >= since

    def _may_begin(self, tenant: str) -> bool:
        if self._busy.total() >= UNDER_WAY:
            return False
        return not self._is_beside_others(tenant) or not (
            self._busy[tenant] or tenant in self._resting
        )

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
                self._end(tenant, 0)  # it was given just now
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

    def _end(self, tenant: str, seconds: float) -> None:
        """End one turn, which took so long: the tenant rests, if others are there."""
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
        if self._is_beside_others(tenant):
            self._resting.add(tenant)
            self._later(min(seconds, LONGEST_REST), lambda: self._rested(tenant))
        self._begin()

    def _rested(self, tenant: str) -> None:
        self._resting.discard(tenant)
        self._begin()

    def _begin(self) -> None:
        """Give turns to those who may have one: each tenant stands behind all others then."""
        while (tenant := next(filter(self._may_begin, self._lines), None)) is not None:
            line = self._lines.pop(tenant)
            self._busy[tenant] += 1
            line.popleft().set_result(None)
            if line:
                self._lines[tenant] = line
