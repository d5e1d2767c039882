"""SQLAlchemy's words for statements, without SQLAlchemy: what is said by them is made when it is
compiled. Most statements are compiled ahead (`frozen`), and to load SQLAlchemy takes longer than
most commands do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

T = TypeVar("T")


class Deferred:
    """Something of SQLAlchemy's that is made when it is needed: by `make`, once. Whatever is done
    with it makes another such thing."""

    __slots__ = ("_made", "_make")
    __hash__ = object.__hash__
    __iter__ = None  # else `__getitem__` would make it endless

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._made: Any = None

    def __clause_element__(self) -> Any:
        """The thing itself, as SQLAlchemy asks for it where it is given another."""
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made

    def __call__(self, *values: Any, **named: Any) -> Deferred:
        return Deferred(lambda: real(self)(*map(real, values), **real(named)))

    def __getattr__(self, name: str) -> Deferred:
        if name.startswith("__"):
            raise AttributeError(name)
        return Deferred(lambda: getattr(real(self), name))

    def __bool__(self) -> bool:
        raise TypeError("a condition for the database is neither true nor false here")


def _operation(name: str) -> Callable[..., Deferred]:
    operation = getattr(operator, name)
    return lambda left, *right: Deferred(lambda: operation(real(left), *map(real, right)))


for _name in (
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__add__", "__sub__", "__mul__",
    "__truediv__", "__and__", "__or__", "__invert__", "__neg__", "__getitem__",
):  # fmt: skip
    setattr(Deferred, _name, _operation(_name))


def real(value: T) -> T:
    """The value, with SQLAlchemy's own in the place of what was put off, also in it."""
    kind: Any = type(value)
    if isinstance(value, Deferred):
        return cast("T", value.__clause_element__())
    if kind in (list, tuple, set, frozenset):
        return cast("T", kind(map(real, cast("Any", value))))
    if isinstance(value, Mapping):
        return cast("T", {real(key): real(item) for key, item in value.items()})
    return value


class DeferredTable(Deferred):
    """A table, by its name and those of its columns, of which `texts` are joined by `+`."""

    __slots__ = ("c", "column_names", "name")

    def __init__(self, name: str, columns: str, texts: frozenset[str]) -> None:
        def make() -> Any:
            from sqlalchemy import Text, column, table

            kinds = {text: Text() for text in texts}
            return table(name, *(column(each, kinds.get(each)) for each in self.column_names))

        super().__init__(make)
        self.name, self.column_names = name, tuple(columns.split())
        self.c: Any = DeferredColumns(self)


def columns_of(table: TableClause) -> tuple[str, ...]:
    """The names of the columns of a table, in its order."""
    return cast("DeferredTable", table).column_names


class DeferredColumns:
    """The columns of a table, by their names."""

    def __init__(self, table: DeferredTable) -> None:
        self._table = table
        self._columns = {name: DeferredColumn(table, name) for name in table.column_names}

    def __getattr__(self, name: str) -> DeferredColumn:
        try:
            return self._columns[name]
        except KeyError:
            raise AttributeError(f"{self._table.name} has no column {name}") from None

    def __getitem__(self, name: str) -> DeferredColumn:
        return self._columns[name]


class DeferredColumn(Deferred):
    """A column of a table."""

    __slots__ = ("name",)

    def __init__(self, table: DeferredTable, name: str) -> None:
        super().__init__(lambda: real(table).c[name])
        self.name = name


def _word(name: str) -> Deferred:
    def make() -> Any:
        import sqlalchemy

        return getattr(sqlalchemy, name)

    return Deferred(make)


if TYPE_CHECKING:
    from sqlalchemy import BindParameter as BindParameter
    from sqlalchemy import ColumnClause as ColumnClause
    from sqlalchemy import ColumnElement as ColumnElement
    from sqlalchemy import Connection as Connection
    from sqlalchemy import Delete as Delete
    from sqlalchemy import Insert as Insert
    from sqlalchemy import Select as Select
    from sqlalchemy import TableClause as TableClause
    from sqlalchemy import Text as Text
    from sqlalchemy import Update as Update
    from sqlalchemy import and_ as and_
    from sqlalchemy import bindparam as bindparam
    from sqlalchemy import case as case
    from sqlalchemy import cast as cast_

    as_type = cast_
    from sqlalchemy import column as column
    from sqlalchemy import delete as delete
    from sqlalchemy import exists as exists
    from sqlalchemy import false as false
    from sqlalchemy import func as func
    from sqlalchemy import insert as insert
    from sqlalchemy import null as null
    from sqlalchemy import or_ as or_
    from sqlalchemy import select as select
    from sqlalchemy import table as table
    from sqlalchemy import text as text
    from sqlalchemy import true as true
    from sqlalchemy import tuple_ as tuple_
    from sqlalchemy import union_all as union_all
    from sqlalchemy import update as update

    Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
else:
    #: Names that only annotations have.
    BindParameter = ColumnClause = ColumnElement = Connection = Delete = Insert = Select = Any
    Statement = TableClause = Update = Any
    (
        Text, and_, as_type, bindparam, case, column, delete, exists, false, func, insert, null,
        or_, select, table, text, true, tuple_, union_all, update,
    ) = map(
        _word,
        (
            "Text", "and_", "cast", "bindparam", "case", "column", "delete", "exists", "false",
            "func", "insert", "null", "or_", "select", "table", "text", "true", "tuple_",
            "union_all", "update",
        ),
    )  # fmt: skip
