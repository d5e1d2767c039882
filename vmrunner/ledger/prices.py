"""Prices as clouds quoted them last, each with its time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.sql import Connection, delete, func, select
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import PRICES
from vmrunner.model import Price, Scope

_p = PRICES.c
_here = _p.kind == arg("kind"), _p.place == arg("place")
_TOLD = Prepared(lambda: select(_p.item, _p.usd_hour, _p.at).where(*_here))
_FORGET = Prepared(lambda: delete(PRICES).where(*_here, _p.item == arg("item")))
_INSERT = inserts(PRICES)
_AGES = Prepared(
    lambda: select(_p.kind, _p.place, func.min(_p.at), func.max(_p.at)).group_by(_p.kind, _p.place)
)


class PriceAge(NamedTuple):
    """A place, and the times of its oldest and its newest price."""

    kind: str
    place: str
    oldest: float
    newest: float


class Prices:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, scope: Scope) -> dict[str, Price]:
        """The cloud's prices at this place, by item."""
        rows = self._database.read(lambda c: _TOLD(c, kind=scope.kind, place=scope.place).all())
        return {item: Price(usd_hour, at) for item, usd_hour, at in rows}

    def store(self, scope: Scope, quoted: Mapping[str, float], now: float) -> None:
        """Note the prices that the cloud quoted just now. An item that it left out stays as it
        was."""

        def work(connection: Connection) -> None:
            for item in sorted(quoted):
                where = {"kind": scope.kind, "place": scope.place, "item": item}
                _FORGET(connection, **where)
                _INSERT(connection, **where, usd_hour=quoted[item], at=now)

        if quoted:
            with contextlib.suppress(Duplicate):  # another node stores them at this moment
                self._database.write(work)

    def ages(self) -> list[PriceAge]:
        """Return the places that have prices."""
        return [PriceAge(*row) for row in self._database.read(lambda c: _AGES(c).all())]
