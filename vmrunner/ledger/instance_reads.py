"""Questions about instances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

from vmrunner.errors import Conflict, NotFound
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.labels import owned_by
from vmrunner.ledger.row_reading import Readable, RecentRows, RowCache, readable
from vmrunner.ledger.sql import ColumnElement, Connection, Select, Statement, func, or_, select
from vmrunner.ledger.statements import ALL_ROWS, Prepared, arg, run
from vmrunner.ledger.tables import INSTANCES
from vmrunner.lib.ids import instances_since
from vmrunner.model import Access, Death, Instance, InstanceState, Order, Ref, Scope, Start

_i = INSTANCES.c
_END = "~"  # sorts after all that an id is made of
_KEPT, _KEPT_SIZE = 1024, 8 << 10  # VMs of lists that are kept decoded, and characters of each
_IDS = 500  # as many in one question: databases have a limit

_GET = Prepared(lambda: select(*codec.INSTANCE).where(_i.id == arg("id")))
_OPEN = Prepared(
    lambda: select(*codec.INSTANCE).where(_i.state != InstanceState.GONE.value).order_by(_i.id)
)


def _by_prefix(own: Mapping[str, str]) -> Statement:
    return (
        select(*codec.INSTANCE)
        .where(_i.id >= arg("low"), _i.id < arg("high"), *owned_by(_i.build, own))
        .order_by(_i.id)
        .limit(4)
    )


_BY_PREFIX = Prepared(partial(_by_prefix, {}))
_ORDER = Prepared(lambda: select(_i.ordered).where(_i.id == arg("id")))


@cache
def _these(count: int) -> Prepared:
    return Prepared(
        lambda: (
            select(*codec.INSTANCE)
            .where(_i.id.in_([arg(f"id{n}") for n in range(count)]))
            .order_by(_i.id.desc())
        )
    )


@cache
def _of_builds(count: int) -> Prepared:
    builds = [arg(f"id{n}") for n in range(count)]
    return Prepared(
        lambda: select(*codec.INSTANCE).where(_i.build.in_(builds)).order_by(_i.id.desc())
    )


@cache
def _starts(count: int) -> Prepared:
    ids = [arg(f"id{n}") for n in range(count)]
    return Prepared(lambda: select(_i.id, _i.start).where(_i.id.in_(ids), _i.start.is_not(None)))


def _offers(only: ColumnElement[bool]) -> Statement:
    return select(_i.offer).where(_i.provider == arg("provider"), only).distinct()


_OFFERED = Prepared(lambda: _offers(_i.state != InstanceState.GONE.value))
_OFFERED_SINCE = Prepared(lambda: _offers(_i.id >= arg("low")))
_ANY = Prepared(lambda: select(_i.id).where(_i.provider == arg("provider")).limit(1))
_FIRST_BIRTH = Prepared(
    lambda: select(func.min(func.coalesce(_i.claimed_at, _i.created_at))).where(
        _i.build == arg("build"),
        or_(
            _i.state != InstanceState.GONE.value,
            _i.death.is_(None),
            _i.death != Death.REFUSED.value,
            _i.ref.is_not(None),
        ),
    )
)
_CONTAINER = Prepared(
    lambda: (
        select(_i.container)
        .where(_i.build == arg("build"), _i.container.is_not(None))
        .order_by(_i.attempt, _i.id)
        .limit(1)
    )
)
_ACCESS = Prepared(lambda: select(_i.access).where(_i.id == arg("id")))


def _listed(build: bool, active: bool | None, before: bool) -> Select[*tuple[Any, ...]]:
    """The instances of a build, that are not gone or gone, before an id, each where it is asked
    for; newest first."""
    conditions: list[ColumnElement[bool]] = []
    if build:
        conditions.append(_i.build == arg("build"))
    if active is not None:
        gone = _i.state == InstanceState.GONE.value
        conditions.append(~gone if active else gone)
    if before:
        conditions.append(_i.id < arg("before"))
    return select(*codec.INSTANCE).where(*conditions).order_by(_i.id.desc()).limit(arg("limit"))


_LISTED = {
    (build, active, before): Prepared(partial(_listed, build, active, before))
    for build, active, before in product((False, True), (None, True, False), (False, True))
}


class InstanceReads:
    """Every instance that was ever born here."""

    def __init__(self, database: Database, seal: Encryption) -> None:
        self._database = database
        self._seal = seal
        self._memory = RowCache(codec.instance)
        self._asked_for = RowCache(codec.instance)
        self._listed = RecentRows(codec.instance, _KEPT, _KEPT_SIZE)

    def get(self, instance_id: str) -> Instance:
        """Raises NotFound."""
        row = self._database.look_up(_GET, id=instance_id)
        if row is None:
            raise NotFound(f"there is no instance {instance_id}")
        return codec.instance(row)

    def find(self, word: str, own: Mapping[str, str] | None = None) -> Instance:
        """Find an instance by id or the beginning of one, with or without its `vm-`; only among
        those of builds of the principal with the label filter `own`. Raises NotFound, and Conflict
        when several begin so."""
        if not word:
            raise NotFound("an empty word names no instance")
        low = word if word.startswith("vm-") else f"vm-{word}"
        by_prefix = Prepared(partial(_by_prefix, own)) if own else _BY_PREFIX
        rows = self._database.read(lambda c: by_prefix(c, low=low, high=low + _END).all())
        if not rows:
            raise NotFound(f"there is no instance {word!r}", hint="vmrunner vm ls -a lists all")
        if len(rows) > 1 and rows[0][0] != low:
            some = ", ".join(row[0] for row in rows[:3])
            raise Conflict(
                f"several instances begin with {word!r}: {some}", hint="write more of the id"
            )
        return codec.instance(rows[0])

    def open(self) -> Readable[Instance]:
        """All instances that are not gone, oldest first."""
        return self._database.read(lambda c: self._memory.read(_OPEN(c).all()))

    def these(self, ids: Collection[str]) -> Readable[Instance]:
        """The rows of these ids, open or gone, as far as there are any. Newest first."""
        found = Readable[Instance]()
        for some in parts_of(ids):
            part = self._asked_for.read(self._asked(_these, some))
            found.extend(part)
            found.unread |= part.unread
        return found

    def of_builds(self, builds: Collection[str]) -> Readable[Instance]:
        """The rows of these builds, open or gone. Newest first within some hundred builds."""
        found = Readable[Instance]()
        for some in parts_of(builds):
            found.extend(self._listed.read(self._asked(_of_builds, some)))
        return found

    def recorded(self, refs: Collection[Ref]) -> Readable[Instance]:
        """The open rows that recorded these references, as far as there are any."""
        found = Readable[Instance]()
        for some in parts_of([codec.ref_text(ref) for ref in refs]):
            part = self._where(_i.ref.in_(some), _i.state != InstanceState.GONE.value)
            found.extend(part)
            found.unread |= part.unread
        return found

    def known(self, ids: Collection[str]) -> frozenset[str]:
        """The ids, of these, that have a row, whether or not it can be read."""
        queries = [select(_i.id).where(_i.id.in_(some)) for some in parts_of(ids)]
        return frozenset(
            self._database.read(lambda c: [name for q in queries for name in run(c, q).scalars()])
            if queries
            else ()
        )

    def starts(self, ids: Collection[str]) -> dict[str, Start]:
        """The way in which each of these came to its build, as far as that is known."""
        found = [row for some in parts_of(ids) for row in self._asked(_starts, some)]
        return {name: Start(start) for name, start in found}

    def places(self, provider: str, since: float | None = None) -> frozenset[Scope]:
        """Return every scope in which this provider has an instance that is not gone, or asked for
        one since that time."""

        def work(connection: Connection) -> list[tuple[Any, ...]]:
            found = _OFFERED(connection, provider=provider).all()
            if since is not None:
                low = instances_since(since)
                found += _OFFERED_SINCE(connection, provider=provider, low=low).all()
            return found

        return frozenset(readable(codec.scope, self._database.read(work)))

    def images(self, provider: str, since: float) -> frozenset[str]:
        """Images of this provider's instances that are not gone, or were asked for since that time.
        Raises Unreadable where one cannot be read."""

        def work(connection: Connection) -> list[tuple[Any, ...]]:
            low = instances_since(since)
            asked_for = _OFFERED_SINCE(connection, provider=provider, low=low).all()
            return [*_OFFERED(connection, provider=provider).all(), *asked_for]

        return frozenset(codec.image_of_offer(row) for row in self._database.read(work))

    def launched(self, provider: str) -> bool:
        """True if this provider ever asked for an instance."""
        return self._database.read(lambda c: _ANY(c, provider=provider).first()) is not None

    def first_birth(self, build: str) -> float | None:
        """The time at which the first VM of a build was asked for, or claimed from a pool, without
        those that were refused. None: there was none."""
        row = self._database.look_up(_FIRST_BIRTH, build=build)
        return None if row is None or row[0] is None else float(row[0])

    def container(self, build: str) -> str | None:
        """The container that the first attempt of a build was reached with, by digest. None: none
        was, or it was given by a digest, or runs in a VM."""
        row = self._database.look_up(_CONTAINER, build=build)
        return None if row is None else str(row[0])

    def order(self, instance_id: str) -> Order:
        """The order as it was frozen. Raises NotFound, also once the row is closed."""
        return codec.order_from(self._unseal(_ORDER, instance_id))

    def access(self, instance_id: str) -> Access:
        """Return the access to an instance. Raises NotFound, also once the row is closed."""
        return codec.access_from(self._unseal(_ACCESS, instance_id))

    def _asked(
        self, statement_of: Callable[[int], Prepared], names: Sequence[str]
    ) -> Sequence[tuple[Any, ...]]:
        """The rows of the statement that takes so many names. Few statements serve all lengths:
        the last name is asked for again."""
        count = 1 << (len(names) - 1).bit_length()
        values = {f"id{n}": names[min(n, len(names) - 1)] for n in range(count)}
        return self._database.read(lambda c: statement_of(count)(c, **values).all())

    def _where(self, *conditions: ColumnElement[bool]) -> Readable[Instance]:
        query = select(*codec.INSTANCE).where(*conditions).order_by(_i.id.desc())
        return self._database.read(lambda c: readable(codec.instance, run(c, query)))

    def _unseal(self, statement: Prepared, instance_id: str) -> bytes:
        row = self._database.look_up(statement, id=instance_id)
        if row is None or row[0] is None:
            raise NotFound(f"there is no instance {instance_id}, or it is closed")
        return self._seal.unseal(bytes(row[0]))

    def list(
        self,
        build: str | None = None,
        active: bool | None = None,
        limit: int | None = None,
        *,
        own: Mapping[str, str] | None = None,
        before: str | None = None,
    ) -> Readable[Instance]:
        """Newest first. `active`: only those not gone (True) or gone (False); `own`: only those
        of builds of the principal with this label filter; `before`: only those whose id sorts
        before that."""
        given = {"build": build, "before": before, "limit": ALL_ROWS if limit is None else limit}
        values = {name: value for name, value in given.items() if value is not None}
        listed = _LISTED[build is not None, active, before is not None]
        if own:
            listed = Prepared(
                lambda: _listed(build is not None, active, before is not None).where(
                    *owned_by(_i.build, own)
                )
            )
        return self._database.read(lambda c: readable(codec.instance, listed(c, **values).all()))


def parts_of(names: Collection[str]) -> Iterator[list[str]]:
    """Yield all of them, newest first, as many at a time as a database takes."""
    ordered = sorted(names, reverse=True)
    return (ordered[n : n + _IDS] for n in range(0, len(ordered), _IDS))
