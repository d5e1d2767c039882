"""Resources that the last sweep showed and that will have expired before the next one.

A sweep is minutes away from the next, and G is one: between them, and without a ledger, only this
memory tells of a resource that has no row. While the ledger says nothing it tells of those that
have one, too.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import Death, Instance, Ref, Scope
from vmrunner.reaper.report import NOTHING, LineFate, Outcomes


class PendingKills:
    """The kills to come at one provider. Nothing of it must survive this process: the next one
    begins with a sweep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a sweep and a pass over the ledger go on side by side
        self._kills: tuple[Deletion, ...] = ()
        self._rows: dict[Ref, Deletion] = {}  # by the last pass that read them
        self._asked: dict[Ref, float] = {}  # when `overdue` told of it last

    def learn(self, plan: ReapPlan, sweep_view: SweepView) -> None:
        """Take in a sweep. What it could not read stays as it was known."""
        with self._lock:
            kept = [k for k in self._kills if sweep_view.unread(k.ref.scope, k.ref.kind)]
            expired = [kill for kill in plan.kills if kill.reason is Death.EXPIRED]
            known: dict[Ref, Deletion] = {kill.ref: kill for kill in (*kept, *plan.later, *expired)}
            self._kills = tuple(known.values())

    def learn_rows(
        self, scopes: Collection[Scope], rows: Iterable[Instance], unread: Collection[str] = ()
    ) -> None:
        """Take in the open rows of these scopes, as they were read: when their VMs will be past
        their deadline. `unread`: rows that could not be read now."""
        known = {
            row.ref: Deletion(
                ref=row.ref, reason=Death.EXPIRED, instance=row.id, expires_at=row.end,
                created_at=row.created_at,
            )
            for row in rows
            if row.ref is not None
        }  # fmt: skip
        with self._lock:
            others = {
                ref: kill
                for ref, kill in self._rows.items()
                if ref.scope not in scopes or kill.instance in unread
            }
            self._rows = others | known
            self._asked = {ref: at for ref, at in self._asked.items() if ref in self._known()}

    def overdue(self, now: float, late: float) -> tuple[Deletion, ...]:
        """Return the deletions of what has been past its deadline for so many seconds: whoever
        should have seen to it did not. Each is told again after as many."""
        with self._lock:
            found = [
                kill
                for kill in self._known().values()
                if kill.expires_at is not None
                and now > kill.expires_at + late
                and now >= self._asked.get(kill.ref, now - late) + late
            ]
            self._asked |= {kill.ref: now for kill in found}
        return tuple(found)

    def _known(self) -> dict[Ref, Deletion]:
        """Return the kills by resource. What a row says can only be in its favour."""
        known = dict(self._rows)
        for kill in self._kills:
            row = known.get(kill.ref)
            if row is None or (kill.expires_at or 0.0) > (row.expires_at or 0.0):
                known[kill.ref] = kill
        return known

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
            missing = {ref for ref, one in outcomes.items() if one.fate is LineFate.MISSING}
            self._rows = {ref: kill for ref, kill in self._rows.items() if ref not in missing}
