"""Arming: where a provider's cloud can end a VM by itself, every VM of ours is armed once it is
born, and disarmed once its row is closed (design §6).

An effect of its own: a build neither waits for it nor fails by it. What a crash leaves armed is a
resource like any other: the sweeps find it, and it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from vmrunner.engine.context import EngineContext, log
from vmrunner.errors import Fenced
from vmrunner.lib.backoff import backoff
from vmrunner.lib.threads import CallSlots
from vmrunner.model import Fate, Instance, InstanceState, Outcome, Ref, Scope
from vmrunner.providers import Arms
from vmrunner.providers.deletion import delete_each

FIRST_WAIT: Final = 1.0  # seconds after one that failed; doubled each time
LONGEST_WAIT: Final = 60.0
FORGET_BATCH: Final = 50

_LIVING: Final = (
    InstanceState.BOOTING,
    InstanceState.READY,
    InstanceState.PARKING,
    InstanceState.PARKED,
    InstanceState.WAKING,
    InstanceState.BUSY,
    InstanceState.HELD,
)


@dataclass(slots=True)
class _Try:
    """An arming that is on its way, or waits for its next turn."""

    instance: Instance
    call: Future[Ref | None] | None = None
    tries: int = 0
    next: float = 0.0  # monotonic


class DeadlineArmer:
    """The armings of one engine. Used by the tick's thread alone, but for `_call`."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._tries: dict[str, _Try] = {}
        self._armed: dict[str, tuple[str, Ref | None]] = {}  # instance → provider, what is armed
        self._over: dict[str, list[Ref]] = {}  # by provider: to be disarmed
        self._slots: CallSlots[str, dict[Ref, Outcome]] = CallSlots(
            context.delete_threads, context.monotonic, context.wake
        )

    @property
    def busy(self) -> bool:
        """True if anything is left to disarm."""
        return bool(self._over) or not self._slots.free

    def settled(self) -> Callable[[Instance], bool]:
        """A predicate for this moment: true for a VM for which nothing is to be armed, as it is."""
        arms: dict[tuple[str, Scope], bool] = {}

        def is_settled(row: Instance) -> bool:
            if row.id in self._armed:
                return True
            place = row.provider, row.scope
            if place not in arms:
                arms[place] = isinstance(self._context.provider_of(row), Arms)
            return not arms[place]

        return is_settled

    def update(self, mine: Iterable[Instance], open_rows: Callable[[], Set[str] | None]) -> None:
        """Arm those of these VMs of ours that are born and, as far as this engine knows, are not;
        disarm those whose rows are not open any more. `open_rows` returns None when they are as at
        the last call."""
        self._collect()
        is_settled = self.settled()
        for row in mine:
            if row.state in _LIVING and row.ref is not None and not is_settled(row):
                self._arm(row)
        open_ids = open_rows() if self._tries or self._armed else None
        for name in self._tries.keys() - open_ids if open_ids is not None else ():
            del self._tries[name]
        for name in self._armed.keys() - open_ids if open_ids is not None else ():
            provider, armed = self._armed.pop(name)
            if armed is not None:
                self._over.setdefault(provider, []).append(armed)
        self._disarm()

    # --- within ---

    def _arm(self, row: Instance) -> None:
        context = self._context
        provider = context.provider_of(row)
        attempt = self._tries.get(row.id)
        if not isinstance(provider, Arms) or (
            attempt and (attempt.call or context.monotonic() < attempt.next)
        ):
            return
        attempt = attempt or self._tries.setdefault(row.id, _Try(row))
        attempt.tries += 1
        attempt.call = context.change_threads(row.provider).submit(self._call(provider, row))
        attempt.call.add_done_callback(lambda _: context.wake())

    def _call(self, provider: Arms, row: Instance) -> Callable[[], Ref | None]:
        def call() -> Ref | None:
            now = self._context.ledger.instances.get(row.id)
            if row.ref is None or now.epoch != row.epoch or now.state not in _LIVING:
                raise Fenced(f"{row.id} is {now.state} at epoch {now.epoch}")
            return provider.arm(row.ref, row.id, row.deadline)

        return call

    def _collect(self) -> None:
        for name, attempt in list(self._tries.items()):
            call = attempt.call
            if call is None or not call.done():
                continue
            attempt.call = None
            row, error = attempt.instance, call.exception()
            if error is None:
                self._armed[name] = row.provider, call.result()
                del self._tries[name]
            elif isinstance(error, Fenced):
                del self._tries[name]
            else:
                wait = backoff(FIRST_WAIT, attempt.tries - 1, LONGEST_WAIT)
                attempt.next = self._context.monotonic() + wait
                if attempt.tries == 1:
                    with self._context.guard("arm", row.build):
                        raise error

    def _disarm(self) -> None:
        for name, call in self._slots.finished():
            with self._context.guard(f"disarm at {name}"):
                for ref, outcome in call.result().items():
                    if outcome.fate is Fate.FAILED:
                        log.warning("%s is left to a sweep: %s", ref.id, outcome.error)
        for name, over in list(self._over.items()):
            slot = self._slots[name]
            provider = self._context.providers.get(name)
            if provider is None:
                del self._over[name]  # what sweeps there finds them
            elif slot.free:
                batch, rest = over[:FORGET_BATCH], over[FORGET_BATCH:]
                if rest:
                    self._over[name] = rest
                else:
                    del self._over[name]
                slot.send(partial(delete_each, provider, batch))
