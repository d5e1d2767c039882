"""Sums of what VMs cost, by day, that outlive the rows of these VMs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import Connection, case, func, select, update

from vmrunner.core.cost_report import CostKind, DayKey, DaySum, Owner
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import COST_DAYS
from vmrunner.model import PriceSource

#: Sets of labels in one day that are told apart, such as of each commit: with more of them sums
#: would grow as rows do. Builds of others count as builds without labels.
MOST_OWNERS: Final = 1000

_d = COST_DAYS.c
_SUMS: Final = tuple(one.name for one in fields(DaySum))
_INSERT = inserts(COST_DAYS)
_HERE: Final = (_d.day == arg("day"), _d.key == arg("key"))
_ADD = Prepared(
    lambda: (
        update(COST_DAYS)
        .where(*_HERE)
        .values({name: _d[name] + arg(name) for name in _SUMS if name != "price_at"})
        .values(
            price_at=case(
                (_d.price_at.is_(None) | (arg("price_at") < _d.price_at), arg("price_at")),
                else_=_d.price_at,
            )
        )
    )
)
_COUNT = Prepared(lambda: select(func.count()).select_from(COST_DAYS).where(_d.day == arg("day")))
_SINCE = Prepared(
    lambda: (
        select(_d.day, _d.what, _d.provider, _d.tenant, _d.labels, _d.source)
        .add_columns(*(_d[name] for name in _SUMS))
        .where(_d.day >= arg("since"))
        .order_by(_d.day, _d.key)
    )
)


def add(connection: Connection, sums: Mapping[DayKey, DaySum]) -> None:
    """Add these in this transaction, in one order, so that who else does so waits for no cycle."""
    for key, day in sorted(sums.items(), key=lambda item: (item[0].day, repr(item[0]))):
        if _added(connection, key, day):
            continue
        many = (_COUNT(connection, day=key.day).scalar() or 0) >= MOST_OWNERS
        if many and key.owner.labels:
            key = key._replace(owner=Owner(key.owner.tenant))
            if _added(connection, key, day):
                continue
        _INSERT(connection, **_named(key), **asdict(day))


def _added(connection: Connection, key: DayKey, day: DaySum) -> bool:
    named = _named(key)
    where = {"day": named["day"], "key": named["key"]}
    return _ADD(connection, **where, **asdict(day)).rowcount == 1


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


def since(connection: Connection, midnight: float) -> list[tuple[DayKey, DaySum]]:
    """Return the sums of that day and later ones."""
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
        for row in _SINCE(connection, since=midnight).all()
    ]
