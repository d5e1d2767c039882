"""The time since when each scope answers without a break: silence of an unseen VM proves nothing.
Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vmrunner.model import Scope


class Reachability:
    """The scopes that one watcher reaches; `now` is monotonic. `gap`: so many seconds without an
    answer are a break."""

    def __init__(self, gap: float = math.inf) -> None:
        self._gap = gap
        self._since: dict[Scope, float] = {}
        self._last: dict[Scope, float] = {}

    def record(self, scope: Scope, now: float) -> None:
        """Note that a scope answered."""
        if scope not in self._last or now - self._last[scope] > self._gap:
            self._since[scope] = now
        self._last[scope] = now

    def lost(self, scope: Scope) -> None:
        """Note that a scope did not answer."""
        self._last.pop(scope, None)

    def since(self, scopes: Iterable[Scope], now: float, provider_now: float) -> dict[Scope, float]:
        """The times by scope, on a clock that says `provider_now` now; infinite where a scope does
        not answer."""
        return {
            scope: provider_now - (now - self._since[scope])
            if scope in self._last and now - self._last[scope] <= self._gap
            else math.inf
            for scope in set(scopes)
        }
