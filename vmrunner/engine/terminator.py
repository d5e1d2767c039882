"""Death: what must die is asked to die, again and again, until it is seen dead.

Nothing here gives up and nothing concludes from absence; the sweeps do that (`reaper`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from vmrunner.engine.context import EngineContext, log
from vmrunner.lib.backoff import backoff
from vmrunner.lib.threads import CallSlots
from vmrunner.model import Fate, Instance, InstanceState, Outcome, Ref
from vmrunner.providers import Provider
from vmrunner.providers.deletion import DELETE_RETRY, FORCE_AFTER, delete_each

FIRST_WAIT: Final = 1.0  # seconds after a failed one; doubled each time
LONGEST_WAIT: Final = 300.0  # … inside its deadline; past it, DELETE_RETRY
DELETE_BATCH: Final = 50  # a bad item in a batch of a cloud costs little then


class Terminator:
    """The deletes of one engine. Used by the tick's thread alone."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._slots: CallSlots[str, dict[str, Outcome]] = CallSlots(
            context.delete_threads, context.monotonic, context.wake
        )
        self._next: dict[str, float] = {}  # instance → monotonic
        self._refs: dict[str, Ref] = {}  # of rows that do not know theirs: seen by its name

    def found(self, instance: str, ref: Ref) -> None:
        """A look saw the VM of a dying row that has no reference."""
        self._refs[instance] = ref

    def done(self, instance: str) -> None:
        """Forget an instance whose row is closed."""
        self._next.pop(instance, None)
        self._refs.pop(instance, None)

    def send_deletes(self, rows: Iterable[Instance]) -> None:
        """Ask for the death of all dying rows whose turn it is, a batch a provider."""
        due: dict[str, list[Instance]] = {}
        now = self._context.monotonic()
        for row in rows:
            if row.state is InstanceState.DELETING and self._due(row, now):
                due.setdefault(row.provider, []).append(row)
        for name, dying in due.items():
            slot = self._slots[name]
            if slot.free:
                provider = self._context.providers[name]
                first = [row for row in dying if row.deletes < FORCE_AFTER][:DELETE_BATCH]
                batch, force = (first, False) if first else (dying[:DELETE_BATCH], True)
                slot.send(self._deleting(provider, self._named(batch), force=force))

    def collect(self, rows: Mapping[str, Instance]) -> None:
        """Take in the answers. What was not accepted is noted in its row, with its next turn."""
        for _, call in self._slots.finished():
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

    def _named(self, batch: list[Instance]) -> dict[Ref, str]:
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
