"""Many deletes in one call, where the cloud refuses a whole batch for one bad item.

A refused batch is split until the bad ones are alone: at once where the refusal names them, else
in halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vmrunner.model import Fate, Outcome
from vmrunner.providers.common.call_failed import CallFailed

T = TypeVar("T")


def in_batches(
    items: Sequence[T],
    size: int,
    call: Callable[[Sequence[T]], None],
    *,
    poisoned: Callable[[CallFailed], bool],
    names: Callable[[CallFailed, T], bool],
    alone: Callable[[T, CallFailed], Outcome],
) -> dict[T, Outcome]:
    """Make calls for batches of at most `size` items and return each item's outcome. `call` raises
    `CallFailed` when none of its items was accepted; `poisoned`: one bad item may be to blame;
    `names`: it names this one; `alone` decides about an item that was refused in a batch of its
    own."""

    def send(batch: Sequence[T]) -> dict[T, Outcome]:
        try:
            call(batch)
        except CallFailed as failed:
            if len(batch) == 1:
                return {batch[0]: alone(batch[0], failed)}
            if not poisoned(failed):
                return dict.fromkeys(batch, Outcome(fate=Fate.FAILED, error=str(failed)))
            outcomes: dict[T, Outcome] = {}
            for part in _parts(batch, [item for item in batch if names(failed, item)]):
                outcomes |= send(part)
            return outcomes
        return dict.fromkeys(batch, Outcome(fate=Fate.ACCEPTED))

    outcomes: dict[T, Outcome] = {}
    for batch in batches(items, size):
        outcomes |= send(batch)
    return outcomes


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in order, at most `size` each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _parts(batch: Sequence[T], named: list[T]) -> tuple[Sequence[T], ...]:
    rest = [item for item in batch if item not in named]
    if named and rest:
        return (rest, named)
    half = len(batch) // 2
    return (batch[:half], batch[half:])
