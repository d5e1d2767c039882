"""Looks: many instances in one call a provider, each as often as its state deserves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from vmrunner.desk import Desk
from vmrunner.lanes import Lanes
from vmrunner.model import Instance, InstanceState, Key, Seen
from vmrunner.providers import Provider

FAST: Final = 0.25
SLOW: Final = 10.0  # seconds between looks at what should just go on
SOON: Final = 2.0
#: In these something is about to happen: often at first, later less so.
_CHANGING: Final = (InstanceState.REQUESTED, InstanceState.BOOTING, InstanceState.DELETING)
FRESH: Final = 60.0  # seconds in such a state that deserve looks at the fastest
OLD: Final = 600.0
BATCH: Final = 500


class Watcher:
    """The looks of one engine. Used by the tick's thread alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lanes: Lanes[dict[str, Seen]] = Lanes(desk.deaths, desk.monotonic, desk.wake)
        self._next: dict[str, tuple[InstanceState, float]] = {}  # instance → when, monotonic

    def look(self, rows: Iterable[Instance]) -> None:
        """Send looks at all whose turn it is."""
        now = self._desk.monotonic()
        due: dict[str, list[Instance]] = {}
        for row in rows:
            state, when = self._next.get(row.id, (None, 0.0))
            if state is not row.state or now >= when:
                due.setdefault(row.provider, []).append(row)
        for name, wanted in due.items():
            lane = self._lanes[name]
            if lane.free:
                batch = wanted[:BATCH]
                for row in batch:
                    self._next[row.id] = (row.state, now + self._pause(row))
                lane.send(self._looking(self._desk.providers[name], batch))

    def seen(self) -> dict[str, Seen]:
        """What the looks that ended showed, by instance id. Who is missing was not visible."""
        found: dict[str, Seen] = {}
        for name, call in self._lanes.finished():
            with self._desk.guard(f"look at {name}"):
                found |= call.result()
        return found

    def forget(self, keep: Mapping[str, Instance]) -> None:
        """Drop what is remembered of closed rows."""
        for name in self._next.keys() - keep.keys():
            del self._next[name]

    # --- within ---

    def _pause(self, row: Instance) -> float:
        if row.state not in _CHANGING:
            return SLOW
        age = self._desk.now(row) - row.state_since
        if age < FRESH:
            return FAST
        return SOON if age < OLD else SLOW

    @staticmethod
    def _looking(provider: Provider, batch: list[Instance]) -> Callable[[], dict[str, Seen]]:
        keys: dict[Key, str] = {row.key: row.id for row in batch}

        def call() -> dict[str, Seen]:
            return {keys[key]: seen for key, seen in provider.look(list(keys)).items()}

        return call
