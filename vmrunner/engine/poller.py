"""Looks: many instances in one call a place, each as often as its state deserves."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from vmrunner.core.reachability import Reachability
from vmrunner.engine.context import EngineContext, log
from vmrunner.errors import Throttled
from vmrunner.lib.backoff import backoff
from vmrunner.lib.threads import CallSlots
from vmrunner.model import Instance, InstanceState, Scope, Seen
from vmrunner.providers import LookPace, Provider
from vmrunner.providers.retired_providers import pace_at

FAST_LOOK: Final = LookPace().fresh
#: In these something is about to happen: often at first, later less so.
_CHANGING: Final = (
    InstanceState.REQUESTED,
    InstanceState.BOOTING,
    InstanceState.PARKING,
    InstanceState.WAKING,
    InstanceState.DELETING,
)
FRESH: Final = 60.0  # seconds in such a state that deserve looks at the fastest: `LookPace.fresh`
OLD: Final = 600.0
#: The first slot of a place is for what is urgent, and has small batches; what does not fit into
#: one of these goes to the others, by the thousand. What changes while the first is taken need not
#: wait for it: the second may take it, too.
URGENT: Final = 500
LOOK_BATCH: Final = 5000
SLOTS: Final = 4
#: Seconds without an answer after which a place counts as not seen.
DARK: Final = 60.0
#: No driver's pace is slower: two looks of one place may fail before it counts as not seen.
SLOWEST: Final = DARK / 2
#: Seconds that a place is left alone after looks that failed: doubled with each, until one answers.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
VM_PAUSE: Final = 5.0  # … a VM at least, of which alone the provider refuses looks
#: No cloud's own word for a pause counts for longer, in seconds.
LONGEST_TOLD: Final = 120.0
TELL_AGAIN: Final = 60.0  # seconds; a place that goes on to fail is told of again then

_Place = tuple[str, Scope]
#: Of one place, with its number there.
_Slot = tuple[str, Scope, int]
#: The state of an instance at its last look, and when the next one is due (monotonic). Those that
#: are looked at in one call share it: what just goes on is kept and compared in bulk.
_Turn = tuple[InstanceState | None, float]

_AT_ONCE: Final = (None, -math.inf)


@dataclass(slots=True)
class _Trouble:
    """A place of which looks fail. Times are monotonic."""

    failures: int = 0
    until: float = -math.inf  # no look before
    told_at: float = -math.inf


class InstancePoller:
    """The looks of one engine. Used by the tick's thread alone. Each place, a provider's scope, is
    for itself: one that does not answer hides no other, and is asked less and less often. Nor does
    a VM at which too many looks were made stop those at others."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._slots: CallSlots[_Slot, dict[str, Seen]] = CallSlots(
            lambda slot: context.delete_threads(slot[0]), context.monotonic, context.wake
        )
        self._next: dict[str, _Turn] = {}  # by instance
        self._turns: list[tuple[float, list[str]]] = []  # the same times, as a heap
        self._late: list[str] = []  # their time has come, and no slot was free
        self._in_flight: dict[_Slot, list[str]] = {}  # the instances whose answers are on their way
        self._reachability: dict[str, Reachability] = {}
        self._troubles: dict[_Place, _Trouble] = {}
        self._throttled: dict[str, float] = {}  # instance → no look at it before (monotonic)

    def knows(self, row: Instance) -> bool:
        """True if a look at it in its present state was sent: the next one comes in its time."""
        state, _ = self._next.get(row.id, _AT_ONCE)
        return state is row.state

    def poll(
        self,
        rows: Mapping[str, Instance],
        such: Collection[str],
        is_pending: Callable[[str], bool],
    ) -> None:
        """Send looks at all whose turn it is: what changes first, then what waited longest. `such`:
        ids of those whose turn may be before the time that was noted at their last look.
        `is_pending`: a call is under way before whose end a look is of no use."""
        now = self._context.monotonic()
        names = dict.fromkeys([*self._late, *sorted(such)])
        while self._turns and self._turns[0][0] <= now:
            names |= dict.fromkeys(heapq.heappop(self._turns)[1])
        self._late = []
        for place, turns in self._due(rows, names, now, is_pending).items():
            wanted = [row for _, turn in sorted(turns.items()) for row in turn]
            parts = [wanted[:URGENT]]
            parts += [wanted[n : n + LOOK_BATCH] for n in range(URGENT, len(wanted), LOOK_BATCH)]
            free = [n for n in range(1, SLOTS) if self._slots[(*place, n)].free]
            urgent = 0 if self._slots[(*place, 0)].free or wanted[0].state not in _CHANGING else 1
            others = [n for n in free if n != urgent]
            for slot, part in zip_longest([urgent, *others][: len(parts)], parts):
                if slot is not None and self._slots[(*place, slot)].free:
                    self._send((*place, slot), part, now)
                else:
                    self._late += [row.id for row in part]

    def observations(self) -> dict[str, Seen]:
        """The observations of the looks that ended, by instance id. A missing one was not
        visible."""
        found: dict[str, Seen] = {}
        for slot, call in self._slots.finished():
            del self._in_flight[slot]
            name, scope, _ = slot
            error = call.exception()
            if error is not None:
                self._failed((name, scope), error)
                continue
            found |= call.result()
            self._reachability_of(name).record(scope, self._context.monotonic())
            if self._troubles.pop((name, scope), None) is not None:
                log.info("%s in %s answers", name, scope.place)
        return found

    def since(self, rows: Iterable[Instance], provider_now: float) -> dict[Scope, float]:
        """The times since when the scopes of these rows, all of one clock, answer without a break,
        on that clock, which says `provider_now` now."""
        listed = list(rows)
        reachability = self._reachability_of(listed[0].provider)
        return reachability.since(
            {row.scope for row in listed}, self._context.monotonic(), provider_now
        )

    def forget(self, keep: Mapping[str, Instance], changed: frozenset[str] | None) -> None:
        """Drop what is remembered of closed rows. `changed`: ids of those that may be; None: any
        may."""
        for name in self._next.keys() - keep.keys() if changed is None else changed - keep.keys():
            self._next.pop(name, None)
            self._throttled.pop(name, None)

    # --- within ---

    def _failed(self, place: _Place, error: BaseException) -> None:
        """Pause what the refusal is about: one VM, or the place. Both are told once a pause."""
        now = self._context.monotonic()
        doing = f"look at {place[0]} in {place[1].place}"
        wait = min(error.wait, LONGEST_TOLD) if isinstance(error, Throttled) else 0.0
        if isinstance(error, Throttled) and error.instance:
            self._throttled[error.instance] = now + max(wait, VM_PAUSE)
            log.warning("%s: %s", doing, error)
            return
        trouble = self._troubles.setdefault(place, _Trouble())
        pause = max(wait, backoff(FIRST_PAUSE, trouble.failures, LONGEST_PAUSE))
        trouble.failures, trouble.until = trouble.failures + 1, now + pause
        if now >= trouble.told_at + max(TELL_AGAIN, pause):
            trouble.told_at = now
            with self._context.guard(doing):
                raise error

    def _due(
        self,
        rows: Mapping[str, Instance],
        names: Iterable[str],
        now: float,
        is_pending: Callable[[str], bool],
    ) -> dict[_Place, dict[tuple[bool, float], list[Instance]]]:
        """The instances whose turn it is, by place, and there by (steady, time of the turn)."""
        flying = {name for ids in self._in_flight.values() for name in ids}
        due: dict[_Place, dict[tuple[bool, float], list[Instance]]] = {}
        last, group = None, list[Instance]()
        for name in names:
            row = rows.get(name)
            if row is None:  # another's by now: if it is ours again, it has its turn
                self._next.pop(name, None)
                continue
            turn = self._next.get(name, _AT_ONCE)
            when = turn[1] if turn[0] is row.state else -math.inf
            if now < when or is_pending(name):
                continue
            trouble = self._troubles.get((row.provider, row.scope))
            paused = trouble is not None and now < trouble.until
            if name in flying or paused or now < self._throttled.get(name, -math.inf):
                self._late.append(name)
                continue
            alike = (turn, row.state, row.provider, row.offer)
            if alike != last:  # next to never where little changes, and then all are the same
                last, steady = alike, row.state not in _CHANGING
                at_place = due.setdefault((row.provider, row.scope), {})
                group = at_place.setdefault((steady, when), [])
            group.append(row)
        return due

    def _send(self, slot: _Slot, batch: list[Instance], now: float) -> None:
        turns: dict[_Turn, list[str]] = {}
        state, names = None, list[str]()
        for row in batch:
            if row.state is not state or state in _CHANGING:
                state = row.state
                names = turns.setdefault((state, now + self._pause(row)), [])
            names.append(row.id)
        for turn, names in turns.items():
            self._next |= dict.fromkeys(names, turn)
            heapq.heappush(self._turns, (turn[1], names))
        self._in_flight[slot] = [row.id for row in batch]
        self._slots[slot].send(self._looking(self._context.providers[slot[0]], batch))

    def _reachability_of(self, provider: str) -> Reachability:
        return self._reachability.setdefault(provider, Reachability(DARK))

    def _pause(self, row: Instance) -> float:
        pace = pace_at(self._context.providers[row.provider], row.scope)
        age = self._context.now(row) - row.state_since if row.state in _CHANGING else math.inf
        if age < FRESH:
            return min(pace.fresh, SLOWEST)
        return min(pace.changing if age < OLD else pace.steady, SLOWEST)

    @staticmethod
    def _looking(provider: Provider, batch: list[Instance]) -> Callable[[], dict[str, Seen]]:
        keys = [row.key for row in batch]

        def call() -> dict[str, Seen]:
            return {key.instance: seen for key, seen in provider.look(keys).items()}

        return call
