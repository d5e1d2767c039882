"""The time since when each scope is seen without a break: silence in the dark is nobody's fault.
Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vmrunner.model import Scope


class Visibility:
    """The sight of one watcher; `now` is monotonic. `gap`: so many seconds without a sight are a
    break."""

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

    def since(self, scopes: Iterable[Scope], now: float, there: float) -> dict[Scope, float]:
        """Return the times by scope, on a clock that says `there` now; infinite when it is not
        seen."""
        return {
            scope: there - (now - self._since[scope])
            if scope in self._last and now - self._last[scope] <= self._gap
            else math.inf
            for scope in set(scopes)
        }
