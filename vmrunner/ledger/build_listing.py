"""Pages of builds, newest first: of so many builds at most, and of so many bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from itertools import product
from typing import Any, Final, cast

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.labels import having, owned
from vmrunner.ledger.row_reading import RecentRows
from vmrunner.ledger.sql import (
    ColumnElement,
    Connection,
    Select,
    Statement,
    and_,
    func,
    or_,
    select,
    text,
    union_all,
)
from vmrunner.ledger.statements import ALL_ROWS, Prepared, arg, run
from vmrunner.ledger.tables import BUILDS, PEOPLE, TOKENS
from vmrunner.model import BuildChoice, BuildRecord, BuildState

_b, _t, _p = BUILDS.c, TOKENS.c, PEOPLE.c
_DONE: Final = _b.state == BuildState.FINISHED.value
_OPEN: Final = _b.state != BuildState.FINISHED.value  # as the partial index over these says it
#: As the partial index over them says it. A spec is JSON: no text in it has a bare quote.
_SANDBOX: Final = "spec {} '%\"sandbox_ttl\"\\:null%'"
_FEW: Final = 20_000  # builds whose ids may be listed for a query: it takes some 30 ms
_LAST: Final = "\U0010ffff"  # sorts after what any name goes on with


def chosen(
    connection: Connection, choice: BuildChoice, *columns: ColumnElement[Any]
) -> Select[*tuple[Any, ...]]:
    """A query of these columns of the builds of a choice, newest first; with `above` those next to
    it first."""
    conditions = [*having(_b.id, choice.labels), *owned(choice.own), *_of_columns(choice)]
    if choice.name is not None:
        conditions.append(_named(choice.name, bytewise=connection.dialect.name == "sqlite"))
    if choice.actors:
        tokens = select(_t.actor).where(_t.name.in_(choice.actors))
        persons = select(_p.actor).where(_p.name.in_(choice.actors))
        found = run(connection, union_all(tokens, persons)).scalars()
        conditions.append(_any(_b.actor, {*choice.actors, *found}))
    if choice.provider is not None:
        its = [_b.provider == choice.provider]
        conditions.append(_either(connection, its, its))
    conditions += _in_time(connection, choice)
    order = _b.id.desc() if choice.above is None else _b.id.asc()
    return select(*columns).where(*conditions).order_by(order)


def _plain(active: bool | None) -> Statement:
    wanted = select(*codec.BUILD).where(*_of_columns(BuildChoice(active=active)))
    return wanted.order_by(_b.id.desc()).limit(arg("limit"))


_WORDS: Final = [field.name for field in fields(BuildChoice)]
_ANYTHING: Final[tuple[object, ...]] = (None, (), [], {})


def _only(choice: BuildChoice, *names: str) -> bool:
    """True of a choice that goes by nothing but these of its words."""
    return all(getattr(choice, name) in _ANYTHING for name in _WORDS if name not in names)


#: The builds of a choice by nothing else, as most are: newest first.
_PLAIN = {active: Prepared(partial(_plain, active)) for active in (None, True, False)}


def _sizes(active: bool | None, older: bool) -> Statement:
    conditions = _of_columns(BuildChoice(active=active))
    if older:
        conditions.append(_b.id < arg("before"))
    wanted = select(_b.id, func.length(_b.spec)).where(*conditions)
    return wanted.order_by(_b.id.desc()).limit(arg("limit"))


#: The ids of such builds, and the sizes of their specs; also of those before one.
_SIZES = {
    (active, older): Prepared(partial(_sizes, active, older))
    for active, older in product((None, True, False), (False, True))
}


@cache
def _these(count: int, newest_first: bool) -> Prepared:
    order = _b.id.desc() if newest_first else _b.id.asc()
    ids = [arg(f"id{n}") for n in range(count)]
    return Prepared(lambda: select(*codec.BUILD).where(_b.id.in_(ids)).order_by(order))


def first(
    connection: Connection, choice: BuildChoice, limit: int | None
) -> Iterable[Sequence[Any]]:
    """The rows of the first builds of a choice, newest first."""
    if _only(choice, "active"):
        return _PLAIN[choice.active](connection, limit=ALL_ROWS if limit is None else limit).all()
    return run(connection, chosen(connection, choice, *codec.BUILD).limit(limit))


def _of_columns(choice: BuildChoice) -> list[ColumnElement[bool]]:
    """The conditions of which each says what a column is."""
    found: list[ColumnElement[bool]] = []
    if choice.active is not None:
        found.append(_OPEN if choice.active else _DONE)
    if choice.tenant is not None:
        found.append(_b.tenant == choice.tenant)
    if choice.sandbox is not None:
        found.append(cast("Any", text(_SANDBOX.format("NOT LIKE" if choice.sandbox else "LIKE"))))
    if choice.states:
        found.append(_any(_b.state, choice.states))
        if BuildState.FINISHED not in choice.states:
            found.append(_OPEN)  # of them there is an index: many have finished
    if choice.results:
        found.append(_any(_b.result, choice.results))
    if choice.before is not None:
        found.append(_b.id < choice.before)
    if choice.above is not None:
        found.append(_b.id > choice.above)
    return found


def _any(column: ColumnElement[Any], values: Collection[str]) -> ColumnElement[bool]:
    """One value is compared: of its rows an index has the ids in order."""
    texts = sorted(str(value) for value in values)
    return column == texts[0] if len(texts) == 1 else column.in_(texts)


def _named(word: str, *, bytewise: bool) -> ColumnElement[bool]:
    """The condition of a name, or of its beginning. `bytewise`: the database compares texts so by
    itself; PostgreSQL does by operators of their own."""
    start, prefix, _ = word.partition("*")
    if not prefix:
        return _b.name == start
    if bytewise:
        return _b.name.between(start, start + _LAST)
    return and_(
        _b.name.op("~>=~", is_comparison=True)(start),
        _b.name.op("~<=~", is_comparison=True)(start + _LAST),
    )


def _in_time(connection: Connection, choice: BuildChoice) -> list[ColumnElement[bool]]:
    since, until = choice.since, choice.until
    if since is None and until is None:
        return []

    def within(at: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        return [
            *([at >= since] if since is not None else []),
            *([at < until] if until is not None else []),
        ]

    return [_either(connection, within(_b.finished_at), within(_b.created_at))]


def _either(
    connection: Connection, done: list[ColumnElement[bool]], begun: list[ColumnElement[bool]]
) -> ColumnElement[bool]:
    """The condition for what has finished, and the one for what has not: each has its index. Of few
    builds it names the ids: who goes by id from the newest would pass by all that came later."""
    some = select(_b.id).where(_DONE, *done).limit(_FEW + 1).subquery()
    if run(connection, select(func.count()).select_from(some)).scalar_one() > _FEW:
        return or_(and_(_DONE, *done), and_(_OPEN, *begun))
    ids = (select(_b.id).where(state, *such) for state, such in ((_DONE, done), (_OPEN, begun)))
    return _b.id.in_(union_all(*ids))


@dataclass(frozen=True, slots=True)
class BuildPage:
    """Some builds, newest first. `next`: what the page after this one is before; None: there is
    none. `newer`: there are newer ones, as far as that was looked for."""

    builds: Sequence[BuildRecord] = ()
    next: str | None = None
    newer: bool = False


def read(
    connection: Connection,
    choice: BuildChoice,
    limit: int,
    size: int,
    rows: RecentRows[BuildRecord],
) -> BuildPage:
    """The first of them, as many as `limit` allows, and `size`, in bytes of their specs; one at
    least."""
    ids, remaining, more = list[str](), size, False
    for count, (name, length) in enumerate(_sized(connection, choice, limit + 1)):
        remaining -= length
        if more := count == limit or (remaining < 0 and count > 0):
            break
        ids.append(name)
    if not ids:
        return BuildPage()
    # Few statements serve all lengths: the last id is asked for again.
    count, backwards = 1 << (len(ids) - 1).bit_length(), choice.above is not None
    values = {f"id{n}": ids[min(n, len(ids) - 1)] for n in range(count)}
    builds = rows.read(_these(count, not backwards)(connection, **values).all())
    # By the id: a row that cannot be read is no end of the list.
    if backwards:
        return BuildPage(builds[::-1], builds[0].id if builds else None, newer=more)
    return BuildPage(builds, ids[-1] if more else None)


def _sized(connection: Connection, choice: BuildChoice, limit: int) -> Iterable[Sequence[Any]]:
    """The ids of the first builds of a choice, and the sizes of their specs."""
    if _only(choice, "active", "before"):
        older = {} if choice.before is None else {"before": choice.before}
        return _SIZES[choice.active, bool(older)](connection, limit=limit, **older).all()
    # First the ids, for which an index often suffices: a spec is far out in its row.
    first = chosen(connection, choice, _b.id).limit(limit).subquery()
    order = _b.id.desc() if choice.above is None else _b.id.asc()
    query = select(_b.id, func.length(_b.spec)).join_from(BUILDS, first, _b.id == first.c.id)
    return run(connection, query.order_by(order)).all()
