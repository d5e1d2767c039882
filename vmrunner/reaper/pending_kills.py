"""Resources that the last sweep showed and that will have expired before the next one.

A sweep is minutes away from the next, and G is one: between them, and without a ledger, only this
memory tells of a resource that has no row. While the ledger says nothing it tells of those that
have one, too.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable, Mapping

from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import Death, Instance, Key, Kind, Ref, Scope
from vmrunner.reaper.report import NOTHING, LineFate, Outcomes


class PendingKills:
    """The kills to come at one provider. Nothing of it must survive this process: the next one
    begins with a sweep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a sweep and a pass over the ledger go on side by side
        self._kills: tuple[Deletion, ...] = ()
        self._rows: dict[Ref, Deletion] = {}  # by the last pass that read them
        self._unborn: dict[Key, float] = {}  # ends of the rows without reference, by that pass
        self._reported_at: dict[Ref, float] = {}  # when `overdue` gave it last

    def learn(self, plan: ReapPlan, sweep_view: SweepView) -> None:
        """Take in a sweep. What it could not read stays as it was known."""
        with self._lock:
            kept = [k for k in self._kills if sweep_view.unread(k.ref.scope, k.ref.kind)]
            expired = [kill for kill in plan.kills if kill.reason is Death.EXPIRED]
            by_ref: dict[Ref, Deletion] = {
                kill.ref: kill for kill in (*kept, *plan.later, *expired)
            }
            self._kills = tuple(by_ref.values())

    def learn_rows(
        self, scopes: Collection[Scope], rows: Iterable[Instance], unread: Collection[str] = ()
    ) -> None:
        """Take in the open rows of these scopes, as they were read: when their VMs will be past
        their deadline. `unread`: rows that could not be read now."""
        rows = tuple(rows)
        by_ref = {
            row.ref: Deletion(
                ref=row.ref, reason=Death.EXPIRED, instance=row.id, expires_at=row.end,
                created_at=row.created_at,
            )
            for row in rows
            if row.ref is not None
        }  # fmt: skip
        unborn = {row.key: row.end for row in rows if row.ref is None}
        with self._lock:
            others = {
                ref: kill
                for ref, kill in self._rows.items()
                if ref.scope not in scopes or kill.instance in unread
            }
            self._rows = others | by_ref
            kept = {
                key: end
                for key, end in self._unborn.items()
                if key.scope not in scopes or key.instance in unread
            }
            self._unborn = kept | unborn
            self._reported_at = {
                ref: at for ref, at in self._reported_at.items() if ref in self._all()
            }

    def overdue(self, now: float, late: float) -> tuple[Deletion, ...]:
        """The deletions of what has been past its deadline for `late` seconds: the pass that should
        have done them did not. Each is given again after as many."""
        with self._lock:
            found = [
                kill
                for kill in self._all().values()
                if kill.expires_at is not None
                and now > kill.expires_at + late
                and now >= self._reported_at.get(kill.ref, now - late) + late
            ]
            self._reported_at |= {kill.ref: now for kill in found}
        return tuple(found)

    def has_survivors(self, now: float) -> bool:
        """True if a VM of a row that was read last was not seen dead since, or anything else that
        is past its deadline."""
        with self._lock:
            others = (k for k in self._kills if k.ref.kind is not Kind.IMAGE)
            return bool(self._rows) or any(now > (k.expires_at or math.inf) for k in others)

    def _all(self) -> dict[Ref, Deletion]:
        """The kills by resource. What a row says can only be in its favour."""
        by_ref = dict(self._rows)
        for kill in self._kills:
            row = by_ref.get(kill.ref)
            if row is None or (kill.expires_at or 0.0) > (row.expires_at or 0.0):
                by_ref[kill.ref] = kill
        return by_ref

    def note(self, kills: Iterable[Deletion | None]) -> None:
        """Take in what a part of a sweep showed, which may be long in coming to its end."""
        with self._lock:
            by_ref = {kill.ref: kill for kill in (*self._kills, *filter(None, kills))}
            self._kills = tuple(by_ref.values())

    def due(self, now: float) -> tuple[Deletion, ...]:
        """The deletions of what is past its deadline, on the provider's clock."""
        return tuple(k for k in self._kills if k.expires_at is not None and now > k.expires_at)

    def rows_due(self, now: float) -> tuple[Deletion, ...]:
        """The deletions of VMs of rows that are past their deadline."""
        with self._lock:
            return tuple(k for k in self._rows.values() if now > (k.expires_at or math.inf))

    def unborn(self, now: float) -> Mapping[Key, float]:
        """The ends, all past, of rows without a reference: a request may arrive late, and its VM is
        then found by its name alone."""
        with self._lock:
            return {key: end for key, end in self._unborn.items() if now > end}

    def answered(self, outcomes: Outcomes) -> None:
        """Ask again until the next sweep: an accepted delete may come to nothing. Refused first."""
        with self._lock:
            fates = {k.ref: outcomes.get(k.ref, NOTHING).fate for k in self._kills}
            kept = [k for k in self._kills if fates[k.ref] is not LineFate.MISSING]
            self._kills = tuple(sorted(kept, key=lambda k: fates[k.ref] is LineFate.ACCEPTED))
            missing = {ref for ref, outcome in outcomes.items() if outcome.fate is LineFate.MISSING}
            self._rows = {ref: kill for ref, kill in self._rows.items() if ref not in missing}
