"""The builds that wait, as far as a tick looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.model import BuildRecord

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

QUEUE: Final = 1000  # builds of the queue that a tick looks at


class BuildQueue:
    """The queue of one engine. Builds of providers that it does not have end here when their time
    is over, but never stand in the way of its own. Used by the tick's thread alone."""

    def __init__(self, ledger: Ledger, launches: Callable[[], frozenset[str]]) -> None:
        self._ledger = ledger
        self._launches = launches
        self._first: list[BuildRecord] = []
        self._walked = ""  # of a long queue, the last build that was looked at

    def read(self, *, changed: bool) -> list[BuildRecord]:
        """The builds that wait. `changed`: any build may be another than at the last call. Of a
        long queue its head, and the rest by turns: some of those may be out of time too."""
        if changed:
            self._first = self._ledger.builds.queued(QUEUE)
        if len(self._first) < QUEUE:
            return self._first
        builds, queued = self._ledger.builds, list(self._first)
        for name in self._launches():
            queued += builds.queued(QUEUE, provider=name)
        rest = builds.queued_after(self._walked, QUEUE)
        self._walked = rest[-1].id if rest else ""
        return list({build.id: build for build in (*queued, *rest)}.values())
