"""Removal of builds whose time is over, with all their rows. What they cost stays as sums of days,
how they ended as counts.

A build goes once nothing that it left is there: its log and artifacts were let go of and their
objects deleted, all its VMs are seen gone, and no budget has still to take in what they cost."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vmrunner.core import cost_report
from vmrunner.core.cost_report import Owner
from vmrunner.errors import Unreadable
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.day_sums import GONE, SUMMED
from vmrunner.ledger.labels import owners_of
from vmrunner.ledger.removals import RemovedBuilds
from vmrunner.ledger.removed_vms import note_removed
from vmrunner.ledger.sql import Connection, Select, delete, exists, select, tuple_, update
from vmrunner.ledger.statements import Prepared, arg, inserts, run
from vmrunner.ledger.tables import (
    BUDGET_CHARGES,
    BUILDS,
    CHUNKS,
    EVENTS,
    INSTANCES,
    LABELS,
    OBJECTS,
    PAST_COUNTS,
    POOL_STARTS,
)
from vmrunner.model import BuildState, InstanceState

log = logging.getLogger("vmrunner.serve")

#: Builds or VMs in one transaction. Who waits for its turn waits for one of these.
_AT_ONCE: Final = 250
#: Seconds for one night: after years without it there is more than others should feel.
LONGEST_NIGHT: Final = 3600.0
_PAUSE: Final = 0.02
#: Seconds that a VM which was refused keeps its row: it was never there.
REFUSED: Final = 86_400.0

_b, _i, _p = BUILDS.c, INSTANCES.c, PAST_COUNTS.c
_GONE: Final = _i.state == InstanceState.GONE.value
_UNSETTLED: Final = exists().where(BUDGET_CHARGES.c.instance == _i.id)
_OLD: Final = (
    _b.state == BuildState.FINISHED.value,
    _b.finished_at < arg("before"),
    _b.removed_at.is_not(None),
    _b.log_due.is_(None),
    ~exists().where(CHUNKS.c.build == _b.id),
    ~exists().where(OBJECTS.c.build == _b.id),
    ~exists().where(_i.build == _b.id, ~_GONE | _UNSETTLED),
)
_BUILDS = Prepared(
    lambda: (
        select(_b.finished_at, _b.id)
        .where(*_OLD, tuple_(_b.finished_at, _b.id) > tuple_(arg("at"), arg("id")))
        .order_by(_b.finished_at, _b.id)
        .limit(_AT_ONCE)
    )
)
#: VMs of pools and of templates that no build had.
_UNCLAIMED: Final = (_i.build.is_(None), _i.gone_at < arg("before"))
#: VMs that never were.
_REFUSED: Final = (
    _i.ref.is_(None),
    _i.gone_at < arg("refused"),
    ~exists().where(_b.id == _i.build, _b.instance == _i.id),
)


def _vms(*which: Any) -> Prepared:
    return Prepared(
        lambda: (
            select(_i.gone_at, _i.id)
            .where(
                _GONE, ~_UNSETTLED, *which, tuple_(_i.gone_at, _i.id) > tuple_(arg("at"), arg("id"))
            )
            .order_by(_i.gone_at, _i.id)
            .limit(_AT_ONCE)
        )
    )


_VMS: Final = (_vms(*_UNCLAIMED), _vms(*_REFUSED))
_COUNT = inserts(PAST_COUNTS)
_COUNT_MORE = Prepared(
    lambda: (
        update(PAST_COUNTS)
        .where(*(_p[name] == arg(name) for name in ("what", "provider", "result", "reason")))
        .values(count=_p.count + arg("count"), usd=_p.usd + arg("usd"))
    )
)


class OldRows:
    """Builds and VMs that are long over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remove(
        self,
        before: float,
        now: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        dry_run: bool = False,
    ) -> RemovedBuilds:
        """Remove the builds that ended before that time, the VMs of no build that were gone before
        it, and what is left of VMs that were refused a day ago. Return how many builds went, and
        how many cannot be read. What `LONGEST_NIGHT` seconds do not suffice for is left for the
        next night."""
        until = clock() + LONGEST_NIGHT
        values = {"before": before, "refused": now - REFUSED}
        removed, failed = 0, 0
        for statement, drop in (
            (_BUILDS, self._builds),
            *((vms, self._vms) for vms in _VMS),
        ):
            last = (-math.inf, "")
            while clock() < until:
                page = self._database.read(
                    lambda c: statement(c, at=last[0], id=last[1], **values).all()  # noqa: B023
                )
                if not page:
                    break
                last = tuple(page[-1])
                names = [row[1] for row in page]
                went = len(names) if dry_run else self._each(names, drop)
                if statement is _BUILDS:
                    removed += went
                failed += len(names) - went
                if not dry_run:
                    sleep(_PAUSE)
        return RemovedBuilds(removed, failed)

    def _each(self, names: Sequence[str], drop: Callable[[Connection, Sequence[str]], None]) -> int:
        """Drop them together; where one cannot be, each by itself. Return how many went."""
        try:
            self._database.write(lambda c: drop(c, names))
        except (Unreadable, Duplicate) as error:
            if len(names) == 1:
                log.warning("retention: the rows of %s stay: %s", names[0], error)
                return 0
            return sum(self._each([name], drop) for name in names)
        return len(names)

    def _builds(self, connection: Connection, names: Sequence[str]) -> None:
        found = select(_b.id, _b.provider, _b.result, _b.reason, _b.cost, _b.tenant)
        query = found.where(_b.id.in_(names)).order_by(_b.id)
        rows = run(connection, self._locked(query)).all()
        names = [row[0] for row in rows]  # that no other process removed meanwhile
        owners = owners_of(connection, {row[0]: row[5] for row in rows})
        query = select(*codec.INSTANCE, _i.summed).where(_i.build.in_(names))
        _sum_up(connection, run(connection, query).all(), owners)
        ended: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
        for _, provider, result, reason, usd, _ in rows:
            ended[provider, result or "", reason or ""].append(usd)
        for key, costs in sorted(ended.items()):
            _add_count(connection, "build", *key, len(costs), sum(costs))
        for table in (POOL_STARTS, LABELS, EVENTS, INSTANCES):
            run(connection, delete(table).where(table.c.build.in_(names)))
        run(connection, delete(BUILDS).where(_b.id.in_(names)))

    def _vms(self, connection: Connection, names: Sequence[str]) -> None:
        query = select(*codec.INSTANCE, _i.summed).where(_i.id.in_(names)).order_by(_i.id)
        rows = run(connection, self._locked(query)).all()
        _sum_up(connection, rows, {})
        run(connection, delete(INSTANCES).where(_i.id.in_([row[0] for row in rows])))

    def _locked(self, query: Select[Any]) -> Select[Any]:
        """Another node may be at the same rows: it counts them, or we do."""
        return query if self._database.sqlite else query.with_for_update()


def _sum_up(
    connection: Connection, rows: Sequence[Sequence[Any]], owners: Mapping[str, Owner]
) -> None:
    """Add what these VMs cost, and why they died, to what is remembered. Raises Unreadable."""
    found = [codec.instance(row) for row in rows]
    spent = [cost_report.of_instance(row, row.gone_at or row.created_at) for row in found]
    new = [item for item, row in zip(spent, rows, strict=True) if not row[-1]]
    SUMMED.add(connection, cost_report.day_sums(new, owners.__getitem__))
    GONE.add(connection, cost_report.day_sums(spent, owners.__getitem__))
    note_removed(connection, [row.id for row in found])
    death_counts = Counter(
        (row.provider, row.death.value) for row in found if row.death is not None
    )
    for (provider, death), count in sorted(death_counts.items()):
        _add_count(connection, "death", provider, "", death, count, 0.0)


def _add_count(
    connection: Connection, what: str, provider: str, result: str, reason: str, count: int,
    usd: float,
) -> None:  # fmt: skip
    values = {
        "what": what, "provider": provider, "result": result, "reason": reason, "count": count,
        "usd": usd,
    }  # fmt: skip
    if not _COUNT_MORE(connection, **values).rowcount:
        _COUNT(connection, **values)
