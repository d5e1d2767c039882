"""Sums of days that are over, made while the rows of their VMs are still there: a report of a long
time then reads few rows.

A row is added once, with all VMs of its build, when that has ended and all of them were seen gone:
nothing of it changes then. One that sums cannot tell of exactly is marked as such, and counted by
its row.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from vmrunner.core import cost_report
from vmrunner.core.cost_report import DayKey, DaySum, Spent
from vmrunner.errors import Unreadable
from vmrunner.ledger import spent_rows
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.day_sums import SUMMED, Room
from vmrunner.ledger.labels import owners_of
from vmrunner.ledger.sql import Connection, or_, select, tuple_, update
from vmrunner.ledger.statements import Prepared, arg, run
from vmrunner.ledger.tables import BUILDS, INSTANCES
from vmrunner.model import BuildState

log = logging.getLogger("vmrunner.serve")

#: VMs of one transaction.
_AT_ONCE: Final = 200
_PAUSE: Final = 0.02

_b, _i = BUILDS.c, INSTANCES.c
_NEXT = Prepared(
    lambda: (
        select(_i.gone_at, _i.id, _i.build)
        .where(
            _i.summed.is_(None),
            _i.gone_at < arg("before"),
            _i.gone_at >= arg("at"),
            tuple_(_i.gone_at, _i.id) > tuple_(arg("at"), arg("id")),
        )
        .order_by(_i.gone_at, _i.id)
        .limit(_AT_ONCE)
    )
)


class SettledCosts:
    """VMs that are over, on their way into sums of days."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        now: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        longest: float = math.inf,
    ) -> int:
        """Add the VMs that were gone before today (UTC), for `longest` seconds at most. Return how
        many."""
        until, before = clock() + longest, cost_report.midnight(now)
        last, added = (-1.0, ""), 0
        while clock() < until:
            page = self._database.read(
                lambda c: _NEXT(c, before=before, at=last[0], id=last[1]).all()  # noqa: B023
            )
            if not page:
                break
            last = page[-1][0], page[-1][1]
            builds = {build for _, _, build in page if build is not None}
            alone = [name for _, name, build in page if build is None]
            try:
                added += self._database.write(
                    lambda c: self._add(c, builds, alone, before)  # noqa: B023
                )
            except Duplicate:  # another node began the same sum; it comes the next night
                log.info("retention: costs of %d VMs are summed later", len(page))
            sleep(_PAUSE)
        return added

    def _add(
        self, connection: Connection, builds: Collection[str], alone: Sequence[str], before: float
    ) -> int:
        query = select(_b.id, _b.tenant, _b.state).where(_b.id.in_(builds)).order_by(_b.id)
        found = run(connection, query if self._database.sqlite else query.with_for_update()).all()
        over = {row[0]: row[1] for row in found if row[2] == BuildState.FINISHED.value}
        owners = owners_of(connection, over)
        vms = select(*spent_rows.COLUMNS, _i.summed, _i.gone_at)
        vms = vms.where(or_(_i.build.in_(over), _i.id.in_(alone))).order_by(_i.id)
        rows = run(connection, vms if self._database.sqlite else vms.with_for_update()).all()
        groups: defaultdict[str, list[Sequence[Any]]] = defaultdict(list)
        for row in rows:
            groups[row[1] or row[0]].append(row)
        sums: dict[DayKey, DaySum] = {}
        marks: dict[bool, list[str]] = {True: [], False: []}
        spent: list[Spent] = []
        room = Room(connection)
        for group in groups.values():
            if any(row[-2] is not None or row[-1] is None or row[-1] >= before for row in group):
                continue  # not over yet, or somebody else was here
            item = _spent(group)
            exact = item is not None and cost_report.summable(item)
            exact = exact and room.takes(cost_report.day_sums(item or (), owners.__getitem__))
            marks[exact] += [row[0] for row in group]
            spent += item or () if exact else ()
        sums = cost_report.day_sums(spent, owners.__getitem__)
        SUMMED.add(connection, sums)
        for mark, names in marks.items():
            if names:
                statement = update(INSTANCES).where(_i.id.in_(names)).values(summed=mark)
                run(connection, statement)
        return len(marks[True])


def _spent(rows: Sequence[Sequence[Any]]) -> list[Spent] | None:
    """Return the VMs of a build; None where a row cannot be read."""
    try:
        return [spent_rows.spent(row[:13]) for row in rows]
    except Unreadable as error:
        log.warning("retention: %s", error)
        return None
