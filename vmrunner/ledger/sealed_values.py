"""Every sealed value of the ledger, to be sealed anew under another key while engines live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.ledger.database import Database
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.sql import TableClause, select, update
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, INSTANCES, LEDGER

#: So many values are sealed anew in one transaction.
_AT_ONCE: Final = 100


@dataclass(kw_only=True, slots=True)
class ResealedColumn:
    """One sealed column: the numbers of its values, of those sealed anew, and of those that are not
    under the first key all the same."""

    name: str
    values: int = 0
    resealed: int = 0
    left: int = 0


class _Column:
    """A sealed column. `first` sorts before every id."""

    def __init__(self, table: TableClause, column: str, first: str | int) -> None:
        self.name, self.first = f"{table.name}.{column}", first
        key, value = table.c.id, table.c[column]
        self.page = Prepared(
            lambda: (
                select(key, value)
                .where(key > arg("after"), value.is_not(None))
                .order_by(key)
                .limit(_AT_ONCE)
            )
        )
        self.swap = Prepared(
            lambda: (
                update(table)
                .where(key == arg("id"), value == arg("old"))
                .values({column: arg("new")})
            )
        )


#: The canary comes last: while a node still starts with the old key alone, there is more to do.
_COLUMNS: Final = (
    _Column(BUILDS, "secrets", ""),
    _Column(INSTANCES, "access", ""),
    _Column(INSTANCES, "ordered", ""),
    _Column(LEDGER, "canary", 0),
)


class SealedValues:
    """The sealed values of one ledger."""

    def __init__(self, database: Database, seal: Encryption) -> None:
        self._database = database
        self._seal = seal
        self.key_file = seal.file

    def reseal(self) -> list[ResealedColumn]:
        """Seal all under the first key that are not, in small transactions, each complete in
        itself: after a crash call it again. A value that changes or is erased meanwhile stays as
        its writer left it."""
        found = []
        for column in _COLUMNS:
            counts = ResealedColumn(name=column.name)
            for page in self._pages(column):
                counts.resealed += self._reseal(column, page)
            for page in self._pages(column):
                counts.values += len(page)
                counts.left += sum(not self._is_new(value) for _, value in page)
            found.append(counts)
        return found

    def _pages(self, column: _Column) -> Iterator[list[tuple[Any, bytes]]]:
        after = column.first
        while page := self._page(column, after):
            yield page
            after = page[-1][0]

    def _page(self, column: _Column, after: str | int) -> list[tuple[Any, bytes]]:
        rows = self._database.read(lambda c: column.page(c, after=after).all())
        return [(key, bytes(value)) for key, value in rows]

    def _reseal(self, column: _Column, page: list[tuple[Any, bytes]]) -> int:
        changes = []
        for key, old in page:
            try:
                new = self._seal.resealed(old)
            except ConfigError:
                continue  # under none of our keys: it is among those left
            if new is not None:
                changes.append((key, old, new))
        if not changes:
            return 0
        return self._database.write(
            lambda c: sum(
                column.swap(c, id=k, old=old, new=new).rowcount for k, old, new in changes
            )
        )

    def _is_new(self, value: bytes) -> bool:
        try:
            return self._seal.resealed(value) is None
        except ConfigError:
            return False
