"""Sums of what VMs cost, by day: of VMs that are over (`SUMMED`), and of those among them whose
rows are gone (`GONE`). Sums only grow: a VM is added once, when nothing of its build changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from vmrunner.core.cost_report import CostKind, DayKey, DaySum, Owner
from vmrunner.ledger.sql import Connection, TableClause, case, func, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import COST_DAYS, SUMMED_DAYS
from vmrunner.model import PriceSource

#: Sets of labels in one day that are told apart, such as of each commit: with more of them sums
#: would grow as rows do. VMs of others are counted by their rows, and without labels once these
#: are gone.
MOST_OWNERS: Final = 1000

_SUMS: Final = tuple(column.name for column in fields(DaySum))


class DaySums:
    """Sums in one table."""

    def __init__(self, table: TableClause) -> None:
        d = table.c
        self._insert = inserts(table)
        self._add = Prepared(
            lambda: (
                update(table)
                .where(d.day == arg("day"), d.key == arg("key"))
                .values({name: d[name] + arg(name) for name in _SUMS if name != "price_at"})
                .values(
                    price_at=case(
                        (d.price_at.is_(None) | (arg("price_at") < d.price_at), arg("price_at")),
                        else_=d.price_at,
                    )
                )
            )
        )
        self._count = Prepared(
            lambda: select(func.count()).select_from(table).where(d.day == arg("day"))
        )
        self._keys = Prepared(lambda: select(d.key).where(d.day == arg("day")))
        self._between = Prepared(
            lambda: (
                select(d.day, d.what, d.provider, d.tenant, d.labels, d.source)
                .add_columns(*(d[name] for name in _SUMS))
                .where(d.day >= arg("first"), d.day < arg("end"))
                .order_by(d.day, d.key)
            )
        )

    def add(self, connection: Connection, sums: Mapping[DayKey, DaySum]) -> None:
        """Add these in this transaction, in one order, so that who else does so waits for no
        cycle."""
        for key, day in sorted(sums.items(), key=lambda item: (item[0].day, repr(item[0]))):
            if self._added(connection, key, day):
                continue
            many = (self._count(connection, day=key.day).scalar() or 0) >= MOST_OWNERS
            if many and key.owner.labels:
                key = key._replace(owner=Owner(key.owner.tenant))
                if self._added(connection, key, day):
                    continue
            self._insert(connection, **_named(key), **asdict(day))

    def _added(self, connection: Connection, key: DayKey, day: DaySum) -> bool:
        named = _named(key)
        where = {"day": named["day"], "key": named["key"]}
        return self._add(connection, **where, **asdict(day)).rowcount == 1

    def keys(self, connection: Connection, day: float) -> set[str]:
        """Return the keys of a day."""
        return {row[0] for row in self._keys(connection, day=day).all()}

    def between(
        self, connection: Connection, first: float, end: float
    ) -> list[tuple[DayKey, DaySum]]:
        """Return the sums of the days from one midnight to another."""
        return [
            (
                DayKey(
                    row[0],
                    CostKind(row[1]),
                    row[2],
                    Owner(row[3], tuple(sorted(json.loads(row[4]).items()))),
                    PriceSource(row[5]),
                ),
                DaySum(**dict(zip(_SUMS, row[6:], strict=True))),
            )
            for row in self._between(connection, first=first, end=end).all()
        ]


SUMMED: Final = DaySums(SUMMED_DAYS)
GONE: Final = DaySums(COST_DAYS)


class Room:
    """Room that days have for more sets of labels, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys: dict[float, set[str]] = {}

    def takes(self, sums: Iterable[DayKey]) -> bool:
        """Take the keys of a build, if all its days have room for them."""
        added = [(self._of(key.day), _named(key)["key"], key.owner.labels) for key in sums]
        if any(
            labels and name not in keys and len(keys) >= MOST_OWNERS for keys, name, labels in added
        ):
            return False
        for keys, name, _ in added:
            keys.add(name)
        return True

    def _of(self, day: float) -> set[str]:
        if day not in self._keys:
            self._keys[day] = SUMMED.keys(self._connection, day)
        return self._keys[day]


def _named(key: DayKey) -> dict[str, Any]:
    values = {
        "what": key.what.value,
        "provider": key.provider,
        "tenant": key.owner.tenant,
        "source": key.source.value,
        "labels": json.dumps(dict(key.owner.labels)),
    }
    digest = hashlib.sha256(json.dumps(list(values.values())).encode()).hexdigest()
    return {"day": key.day, "key": digest, **values}
