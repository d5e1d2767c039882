"""Seconds since a value that another process writes last changed, by our own monotonic clock.

A heartbeat, a lease, an order: each is a value that changes while its writer lives. What it says is
compared with nothing but what it said before, so neither a clock that is wrong, here or there, nor
one that is set while we watch makes anybody look dead.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: So many looks at least must have found the same before it counts as unchanged for a whole lease.
LOOKS: Final = 3


@dataclass(slots=True)
class _Watched:
    value: object
    looked: float  # monotonic
    unchanged: float = 0.0


class ChangeWatch(Generic[K]):
    """A watch over values that change at least once in `lease` seconds while their writers live.

    Time in which we did not look counts in part, since we may have slept together with the writer:
    a look adds a third of the lease at most, and nothing after a pause as long as `gap` (the lease,
    unless said otherwise): then all begins anew. So a slow watcher finds out later, and never
    never."""

    def __init__(self, lease: float, gap: float | None = None) -> None:
        self.lease = lease
        self._gap = lease if gap is None else gap
        self._watched: dict[K, _Watched] = {}

    def look(self, key: K, value: object, now: float) -> float:
        """Take in a look; return for how many seconds the value has been the same. `now` is a
        monotonic clock, in seconds."""
        watched = self._watched.get(key)
        if watched is None or watched.value != value or now - watched.looked > self._gap:
            self._watched[key] = _Watched(value, now)
            return 0.0
        watched.unchanged += min(now - watched.looked, self.lease / LOOKS)
        watched.looked = now
        return watched.unchanged

    def silent(self, key: K) -> bool:
        """Return True if it has not changed for a whole lease, as far as was looked."""
        watched = self._watched.get(key)
        return watched is not None and watched.unchanged >= self.lease

    def forget(self, key: K) -> None:
        """Begin anew with one."""
        self._watched.pop(key, None)

    def keep(self, keys: Collection[K]) -> None:
        """Forget all others."""
        for key in self._watched.keys() - set(keys):
            del self._watched[key]

    def tidy(self, now: float) -> None:
        """Forget what was not looked at for so long that it would begin anew."""
        for key in [k for k, watched in self._watched.items() if now - watched.looked > self._gap]:
            del self._watched[key]

    def clear(self) -> None:
        """Forget all: nothing that was seen before counts."""
        self._watched.clear()
