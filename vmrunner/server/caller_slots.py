"""Bounds of what one caller has under way at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from anyio import CancelScope
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vmrunner.model import Principal
from vmrunner.server.prefetch import ReadAhead
from vmrunner.server.problems import HttpProblem

CALLERS: Final = 20  # that may have all of their own at once


class CallerSlots:
    """Counts what callers have under way of one kind, each at most `most()`, and all together
    `CALLERS` times as many. Safe in threads."""

    def __init__(self, noun: str, most: Callable[[], int]) -> None:
        """`noun`: what they have, such as "uploads"."""
        self._noun = noun
        self._most = most
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self.read_ahead = ReadAhead()

    def take(self, principal: Principal) -> None:
        """Raises HttpProblem when the caller has all of its own already."""
        most = self._most()
        with self._lock:
            if self._busy[principal.actor] >= most:
                raise HttpProblem(
                    429,
                    f"{most} {self._noun} of this token are under way",
                    fix="end one of them, or try again later",
                    headers={"Retry-After": "5"},
                )
            if self._busy.total() >= CALLERS * most:
                raise HttpProblem(
                    503,
                    f"{CALLERS * most} {self._noun} of all tokens are under way",
                    fix="try again later",
                    headers={"Retry-After": "5"},
                )
            self._busy[principal.actor] += 1

    @contextmanager
    def held(self, principal: Principal) -> Iterator[None]:
        """Have one for a while. Raises HttpProblem."""
        self.take(principal)
        try:
            yield
        finally:
            self.give_back(principal)

    def give_back(self, principal: Principal) -> None:
        with self._lock:
            self._busy[principal.actor] -= 1
            if not self._busy[principal.actor]:
                del self._busy[principal.actor]


class CallerStream(StreamingResponse):
    """A streamed answer that has a slot of its caller's until it ends, however it ends."""

    def __init__(
        self, content: Any, *, slots: CallerSlots, principal: Principal, **options: Any
    ) -> None:
        ahead = isinstance(content, Iterator)  # else it comes as it happens
        self._pieces = slots.read_ahead.pieces(content) if ahead else None
        super().__init__(self._pieces or content, **options)
        slots.take(principal)  # last: what fails before holds none
        self._slots, self._principal = slots, principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._pieces is not None:  # Starlette closes none when its reader leaves
                with CancelScope(shield=True):
                    await self._pieces.aclose()
            self._slots.give_back(self._principal)
