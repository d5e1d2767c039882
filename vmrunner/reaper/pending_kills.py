"""Resources that the last sweep showed and that will have expired before the next one.

A sweep is minutes away from the next, and G is one: between them, and without a ledger, only this
memory tells of a resource that has no row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import Death, Ref
from vmrunner.reaper.report import NOTHING, LineFate, Outcomes


class PendingKills:
    """The kills to come at one provider. Nothing of it must survive this process: the next one
    begins with a sweep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a sweep and a pass over the ledger go on side by side
        self._kills: tuple[Deletion, ...] = ()

    def learn(self, plan: ReapPlan, sweep_view: SweepView) -> None:
        """Take in a sweep. What it could not read stays as it was known."""
        with self._lock:
            kept = [k for k in self._kills if sweep_view.unread(k.ref.scope, k.ref.kind)]
            expired = [kill for kill in plan.kills if kill.reason is Death.EXPIRED]
            known: dict[Ref, Deletion] = {kill.ref: kill for kill in (*kept, *plan.later, *expired)}
            self._kills = tuple(known.values())

    def note(self, kills: Iterable[Deletion | None]) -> None:
        """Take in what a part of a sweep showed, which may be long in coming to its end."""
        with self._lock:
            known = {kill.ref: kill for kill in (*self._kills, *filter(None, kills))}
            self._kills = tuple(known.values())

    def due(self, now: float) -> tuple[Deletion, ...]:
        """Return the deletions of what is past its deadline, on the provider's clock."""
        return tuple(k for k in self._kills if k.expires_at is not None and now > k.expires_at)

    def answered(self, outcomes: Outcomes) -> None:
        """Ask again until the next sweep: an accepted delete may come to nothing. Refused first."""
        with self._lock:
            fates = {k.ref: outcomes.get(k.ref, NOTHING).fate for k in self._kills}
            kept = [k for k in self._kills if fates[k.ref] is not LineFate.MISSING]
            self._kills = tuple(sorted(kept, key=lambda k: fates[k.ref] is LineFate.ACCEPTED))
