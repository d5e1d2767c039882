"""Death: what must die is asked to die, again and again, until it is seen dead.

Nothing here gives up and nothing concludes from absence; the sweeps do that (`reaper`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from vmrunner.engine.context import EngineContext, log
from vmrunner.lib.backoff import backoff
from vmrunner.lib.threads import CallSlots
from vmrunner.model import Fate, Instance, InstanceState, Outcome, Ref
from vmrunner.providers import Provider
from vmrunner.providers.deletion import DELETE_RETRY, FORCE_AFTER, delete_each

FIRST_WAIT: Final = 1.0  # seconds after a failed one; doubled each time
LONGEST_WAIT: Final = 300.0  # … inside its deadline; past it, DELETE_RETRY
DELETE_BATCH: Final = 50  # a bad item in a batch of a cloud costs little then
SLOTS: Final = 3  # batches of a provider at once: what must die waits for no other's call
#: Seconds for which a delete that is under way has its answer before it is looked at.
ANSWERS: Final = 2.0


class _Batch(NamedTuple):
    """Deletes that are under way in one call. `sent_at` is monotonic."""

    sent_at: float
    instances: frozenset[str]


class Terminator:
    """The deletes of one engine. Used by the tick's thread alone."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._slots: CallSlots[tuple[str, int], dict[str, Outcome]] = CallSlots(
            lambda slot: context.delete_threads(slot[0]), context.monotonic, context.wake
        )
        self._next: dict[str, float] = {}  # instance → monotonic
        self._under_way: dict[tuple[str, int], _Batch] = {}  # by slot
        self._refs: dict[str, Ref] = {}  # of rows that do not know theirs: seen by its name

    def found(self, instance: str, ref: Ref) -> None:
        """A look saw the VM of a dying row that has no reference."""
        self._refs[instance] = ref

    def is_pending(self, instance: str) -> bool:
        """True if it was asked to die a moment ago, and the answer is on its way."""
        answers_by = self._context.monotonic() - ANSWERS
        return any(
            instance in batch.instances and batch.sent_at > answers_by
            for batch in self._under_way.values()
        )

    def done(self, instance: str) -> None:
        """Forget an instance whose row is closed."""
        self._next.pop(instance, None)
        self._refs.pop(instance, None)

    def send_deletes(self, rows: Iterable[Instance]) -> None:
        """Ask for the death of all dying rows whose turn it is, a batch a provider."""
        due: dict[str, list[Instance]] = {}
        now = self._context.monotonic()
        flying = {name for batch in self._under_way.values() for name in batch.instances}
        for row in rows:
            if row.state is InstanceState.DELETING and row.id not in flying and self._due(row, now):
                due.setdefault(row.provider, []).append(row)
        for name, dying in due.items():
            provider = self._context.providers[name]
            first = [row for row in dying if row.deletes < FORCE_AFTER]
            rows, force = (first, False) if first else (dying, True)
            free = [n for n in range(SLOTS) if self._slots[name, n].free]
            for start, n in zip(range(0, len(rows), DELETE_BATCH), free, strict=False):
                named = self._named(rows[start : start + DELETE_BATCH])
                self._under_way[name, n] = _Batch(now, frozenset(named.values()))
                self._slots[name, n].send(self._deleting(provider, named, force=force))

    def collect(self, rows: Mapping[str, Instance]) -> None:
        """Take in the answers. What was not accepted is noted in its row, with its next turn."""
        for slot, call in self._slots.finished():
            del self._under_way[slot]
            with self._context.guard("delete"):
                for name, outcome in call.result().items():
                    row = rows.get(name)
                    if row is not None:
                        self._answered(row, outcome)

    # --- within ---

    def _due(self, row: Instance, now: float) -> bool:
        if row.ref is None and row.id not in self._refs:
            return False  # a look must find it first; if it never does, the sweeps close the row
        if row.id in self._next:
            return now >= self._next[row.id]
        return self._context.now(row) >= row.delete_at

    def _named(self, batch: Sequence[Instance]) -> dict[Ref, str]:
        now = self._context.monotonic()
        named = {}
        for row in batch:
            # Should the call never come back, this is when its turn comes again.
            self._next[row.id] = now + DELETE_RETRY
            named[row.ref or self._refs[row.id]] = row.id
        return named

    @staticmethod
    def _deleting(
        provider: Provider, named: Mapping[Ref, str], *, force: bool
    ) -> Callable[[], dict[str, Outcome]]:
        def call() -> dict[str, Outcome]:
            outcomes = delete_each(provider, list(named), force=force)
            return {named[ref]: outcome for ref, outcome in outcomes.items()}

        return call

    def _answered(self, row: Instance, outcome: Outcome) -> None:
        context = self._context
        again = row.deletes > 0 or outcome.fate is Fate.FAILED
        if outcome.fate is Fate.FAILED:
            log.warning("delete of %s failed: %s", row.id, outcome.error)
            remaining = row.end - context.now(row)  # at its deadline there is another turn
            wait = backoff(FIRST_WAIT, row.deletes, min(max(remaining, DELETE_RETRY), LONGEST_WAIT))
        else:
            wait = DELETE_RETRY
        self._next[row.id] = context.monotonic() + wait
        if again or self._asked_before(row):
            context.ledger.instances.tried(row.id, context.now(row) + wait)

    def _asked_before(self, row: Instance) -> bool:
        """True if a delete was accepted a while ago and the instance is still there: from now on
        the attempts are counted, so that they are forced some day."""
        return self._context.now(row) >= row.state_since + DELETE_RETRY
