"""Looks: many instances in one call a place, each as often as its state deserves."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from vmrunner.core.visibility import Visibility
from vmrunner.engine.context import EngineContext
from vmrunner.lib.threads import CallSlots
from vmrunner.model import Instance, InstanceState, Key, Scope, Seen
from vmrunner.providers import Provider

FAST_LOOK: Final = 0.25
SLOW: Final = 10.0  # seconds between looks at what should just go on
SOON_LOOK: Final = 2.0
#: In these something is about to happen: often at first, later less so.
_CHANGING: Final = (
    InstanceState.REQUESTED,
    InstanceState.BOOTING,
    InstanceState.PARKING,
    InstanceState.WAKING,
    InstanceState.DELETING,
)
FRESH: Final = 60.0  # seconds in such a state that deserve looks at the fastest
OLD: Final = 600.0
#: The first slot of a place is for what is urgent, and has small batches; what does not fit into
#: one of these goes to the others, by the thousand.
URGENT: Final = 500
LOOK_BATCH: Final = 5000
SLOTS: Final = 4
#: Seconds without an answer after which a place counts as not seen.
DARK: Final = 60.0

#: Of one place, with its number there.
_Slot = tuple[str, Scope, int]


class InstancePoller:
    """The looks of one engine. Used by the tick's thread alone. Each place, a provider's scope, is
    for itself: one that does not answer hides no other."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._slots: CallSlots[_Slot, dict[str, Seen]] = CallSlots(
            lambda slot: context.deaths(slot[0]), context.monotonic, context.wake
        )
        self._next: dict[str, tuple[InstanceState, float]] = {}  # instance → when, monotonic
        self._turns: list[tuple[float, str]] = []  # the same times, as a heap
        self._late: set[str] = set()  # their time has come, and no slot was free
        self._asked: dict[_Slot, list[str]] = {}  # the instances whose answers are on their way
        self._sights: dict[str, Visibility] = {}

    def knows(self, row: Instance) -> bool:
        """True if a look at it in its present state was sent: the next one comes in its time."""
        state, _ = self._next.get(row.id, (None, 0.0))
        return state is row.state

    def poll(
        self,
        rows: Mapping[str, Instance],
        such: Collection[str],
        is_pending: Callable[[str], bool],
    ) -> None:
        """Send looks at all whose turn it is: what changes first, then what waited longest. `such`:
        ids of those whose turn may be before the time that was told at their last look.
        `is_pending`: nothing may be there yet."""
        now = self._context.monotonic()
        names, self._late = {*such, *self._late}, set()
        while self._turns and self._turns[0][0] <= now:
            names.add(heapq.heappop(self._turns)[1])
        for name in names - rows.keys():  # another's by now: if it is ours again, it has its turn
            self._next.pop(name, None)
        flying = {name for names in self._asked.values() for name in names}
        due: dict[tuple[str, Scope], list[tuple[bool, float, str, Instance]]] = {}
        for row in (rows[name] for name in names if name in rows):
            state, when = self._next.get(row.id, (None, -math.inf))
            when = when if state is row.state else -math.inf
            if now < when or is_pending(row.id):
                continue
            self._late.add(row.id)
            if row.id not in flying:
                steady = row.state not in _CHANGING
                due.setdefault((row.provider, row.scope), []).append((steady, when, row.id, row))
        for place, entries in due.items():
            wanted = [entry[-1] for entry in sorted(entries, key=lambda entry: entry[:-1])]
            parts = [wanted[:URGENT]]
            parts += [wanted[n : n + LOOK_BATCH] for n in range(URGENT, len(wanted), LOOK_BATCH)]
            free = [n for n in range(1, SLOTS) if self._slots[(*place, n)].free]
            for slot, part in zip([0, *free], parts, strict=False):
                if self._slots[(*place, slot)].free:
                    self._send((*place, slot), part, now)

    def observations(self) -> dict[str, Seen]:
        """Return what the looks that ended showed, by instance id. Who is missing was not
        visible."""
        found: dict[str, Seen] = {}
        for slot, call in self._slots.finished():
            del self._asked[slot]
            name, scope, _ = slot
            with self._context.guard(f"look at {name} in {scope.place}"):
                found |= call.result()
                self._sight(name).record(scope, self._context.monotonic())
        return found

    def since(self, rows: Iterable[Instance], there: float) -> dict[Scope, float]:
        """Since when the places of these, all of one clock, are seen without a break, on its
        clock, which says `there` now."""
        listed = list(rows)
        sight = self._sight(listed[0].provider)
        return sight.since({row.scope for row in listed}, self._context.monotonic(), there)

    def forget(self, keep: Mapping[str, Instance]) -> None:
        """Drop what is remembered of closed rows."""
        for name in self._next.keys() - keep.keys():
            del self._next[name]

    # --- within ---

    def _send(self, slot: _Slot, batch: list[Instance], now: float) -> None:
        for row in batch:
            when = now + self._pause(row)
            self._next[row.id] = (row.state, when)
            heapq.heappush(self._turns, (when, row.id))
            self._late.discard(row.id)
        self._asked[slot] = [row.id for row in batch]
        self._slots[slot].send(self._looking(self._context.providers[slot[0]], batch))

    def _sight(self, provider: str) -> Visibility:
        return self._sights.setdefault(provider, Visibility(DARK))

    def _pause(self, row: Instance) -> float:
        if row.state not in _CHANGING:
            return SLOW
        age = self._context.now(row) - row.state_since
        if age < FRESH:
            return FAST_LOOK
        return SOON_LOOK if age < OLD else SLOW

    @staticmethod
    def _looking(provider: Provider, batch: list[Instance]) -> Callable[[], dict[str, Seen]]:
        keys: dict[Key, str] = {row.key: row.id for row in batch}

        def call() -> dict[str, Seen]:
            return {keys[key]: seen for key, seen in provider.look(list(keys)).items()}

        return call
