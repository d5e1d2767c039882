"""Caches: which tenant has which, in which scope, and when each was used last.

A key is looked for within one tenant alone. A row points at an object of the store; without its row
an object belongs to none, and gc deletes it.
"""

from __future__ import annotations

from typing import Any, Final

from vmrunner.errors import Conflict, NotFound
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.objects import stored
from vmrunner.ledger.sql import (
    ColumnElement,
    Connection,
    Statement,
    Text,
    and_,
    as_type,
    delete,
    exists,
    func,
    select,
    update,
)
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import CACHES, OBJECTS
from vmrunner.lib import ids
from vmrunner.model import CacheRule, CacheScope, ObjectKind, ObjectState, StoredCache, StoredObject
from vmrunner.model.caches import MOST_CACHES

_c, _o = CACHES.c, OBJECTS.c
_COLUMNS: Final = (
    _c.id, _c.tenant, _c.scope, _c.key, _c.path, _c.object, _o.digest, _o.size, _c.build,
    _c.created_at, _c.used_at,
)  # fmt: skip
_WITH_OBJECT: Final = CACHES.join(OBJECTS, _o.name == _c.object)
_HERE: Final = and_(_c.tenant == arg("tenant"), _c.scope == arg("scope"), _c.path == arg("path"))
_INSERT = inserts(CACHES)
_EXACT = Prepared(
    lambda: select(*_COLUMNS).select_from(_WITH_OBJECT).where(_HERE, _c.key == arg("key"))
)
#: As the database counts: bytes, where that has no encoding.
_LENGTH: Final = func.length(as_type(arg("begin"), Text))
_BEGINS = Prepared(
    lambda: (
        select(*_COLUMNS)
        .select_from(_WITH_OBJECT)
        .where(_HERE, func.substr(_c.key, 1, _LENGTH) == arg("begin"))
        .order_by(_c.created_at.desc(), _c.id.desc())
        .limit(1)
    )
)
_USE = Prepared(lambda: update(CACHES).where(_c.id == arg("id")).values(used_at=arg("now")))
_REPLACE = Prepared(
    lambda: (
        update(CACHES)
        .where(_HERE, _c.key == arg("key"))
        .values({name: arg(name) for name in ("id", "object", "build", "created_at", "used_at")})
    )
)
_DROP = Prepared(lambda: delete(CACHES).where(_c.id == arg("id")))
_DROP_OBJECT = Prepared(lambda: delete(CACHES).where(_c.object == arg("name")))
_ALL = Prepared(
    lambda: (
        select(*_COLUMNS)
        .select_from(_WITH_OBJECT)
        .order_by(_c.used_at.desc(), _c.id.desc())
        .limit(arg("limit"))
    )
)
_OF_TENANT = Prepared(
    lambda: (
        select(*_COLUMNS)
        .select_from(_WITH_OBJECT)
        .where(_c.tenant == arg("tenant"))
        .order_by(_c.used_at.desc(), _c.id.desc())
        .limit(arg("limit"))
    )
)
_UNUSED = Prepared(
    lambda: select(*_COLUMNS).select_from(_WITH_OBJECT).where(_c.used_at < arg("before"))
)
#: In the store, and in no row any more.
_FORMER: Final = (
    _o.kind == ObjectKind.CACHE.value,
    _o.state == ObjectState.STORED.value,
    ~exists().where(_c.object == _o.name),
)
_LET_GO = Prepared(lambda: select(func.sum(_o.size)).where(*_FORMER))
_LET_GO_OF_TENANT = Prepared(
    lambda: select(func.sum(_o.size)).where(*_FORMER, _o.tenant == arg("tenant"))
)
_TOTAL = Prepared(lambda: select(func.sum(_o.size)).select_from(_WITH_OBJECT))
_OLDEST = Prepared(
    lambda: (
        select(_c.id, _o.size)
        .select_from(_WITH_OBJECT)
        .order_by(_c.used_at, _c.id)
        .limit(arg("limit"))
    )
)

_TRIES: Final = 10
_END: Final = "~"  # sorts after all that an id is made of


def _by_prefix(*such: ColumnElement[bool]) -> Statement:
    low, high = _c.id >= arg("low"), _c.id < arg("high")
    found = select(*_COLUMNS).select_from(_WITH_OBJECT).where(low, high, *such)
    return found.order_by(_c.id).limit(4)


_FIND = Prepared(_by_prefix)
_FIND_OF_TENANT = Prepared(lambda: _by_prefix(_c.tenant == arg("tenant")))


def _drop_oldest(connection: Connection, most: int) -> None:
    """Let those go that were not used for longest, of all tenants, until all have so many bytes:
    tenants may be made without end, of what a pusher calls a branch."""
    above = int(_TOTAL(connection).scalar() or 0) - most
    for name, size in _OLDEST(connection, limit=MOST_CACHES).all() if above > 0 else ():
        if above <= 0:
            return
        _DROP(connection, id=name)
        above -= size


class Caches:
    """All caches of this ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, scope: CacheScope, rule: CacheRule, now: float) -> StoredCache | None:
        """The cache that a build gets, noted as used: in each scope by its very key, then by what
        it may begin with, the newest first."""

        def work(connection: Connection) -> StoredCache | None:
            for name in (scope.own, *scope.others):
                here = {"tenant": scope.tenant, "scope": name, "path": rule.path}
                row = _EXACT(connection, key=rule.key, **here).first()
                for begin in rule.fallback if row is None else ():
                    row = _BEGINS(connection, begin=begin, **here).first()
                    if row is not None:
                        break
                if row is not None:
                    _USE(connection, id=row[0], now=now)
                    return _cache(row)
            return None

        return self._database.write(work)

    def save(
        self,
        item: StoredObject,
        rule: CacheRule,
        *,
        scope: CacheScope,
        build: str,
        now: float,
        most: int,
        total: int | None = None,
    ) -> bool:
        """Let a stored object be what a tenant's scope has under this key, in the place of what it
        had. Those that were not used for longest go, until the tenant has no more than `most` bytes
        and `MOST_CACHES` caches; and all tenants no more than `total` bytes. False: the upload took
        too long, and gc deletes its bytes. Raises Conflict."""

        def work(connection: Connection) -> bool:
            if not stored(connection, item.name):
                return False
            here = {"tenant": scope.tenant, "scope": scope.own, "path": rule.path}
            values: dict[str, Any] = {
                "id": ids.cache_id(), "key": rule.key, "object": item.name, "build": build,
                "created_at": now, "used_at": now, **here,
            }  # fmt: skip
            if not _REPLACE(connection, **values).rowcount:
                _INSERT(connection, **values)
            remaining = most
            rows = _OF_TENANT(connection, tenant=scope.tenant, limit=MOST_CACHES + 1).all()
            for number, row in enumerate(rows):
                remaining -= row[7]
                if remaining < 0 or number >= MOST_CACHES:
                    _DROP(connection, id=row[0])
            if total is not None:
                _drop_oldest(connection, total)
            return True

        for _ in range(_TRIES):
            try:
                return self._database.write(work)
            except Duplicate:  # another saved the same key meanwhile: it is there to be replaced
                continue
        raise Conflict(f"cache {rule.key!r}: too many save it at once", hint="try it again")

    def list(self, tenant: str | None = None, limit: int = MOST_CACHES) -> list[StoredCache]:
        """Caches, those used last first; of all tenants where none is named."""

        def read(connection: Connection) -> list[Any]:
            if tenant is None:
                return list(_ALL(connection, limit=limit).all())
            return list(_OF_TENANT(connection, tenant=tenant, limit=limit).all())

        return [_cache(row) for row in self._database.read(read)]

    def find_named(self, word: str, tenant: str | None = None) -> StoredCache:
        """Find a cache, of this tenant where one is named, by id or the beginning of one, with or
        without its `c-`. Raises NotFound, and Conflict when several begin so."""
        low = word if word.startswith("c-") else f"c-{word}"
        bounds = {"low": low, "high": low + _END}
        if tenant is None:
            rows = self._database.read(lambda c: _FIND(c, **bounds).all())
        else:
            rows = self._database.read(lambda c: _FIND_OF_TENANT(c, **bounds, tenant=tenant).all())
        if not word or not rows:
            raise NotFound(f"there is no cache {word!r}", hint="vmrunner cache ls")
        if len(rows) > 1 and rows[0][0] != low:
            some = ", ".join(row[0] for row in rows[:3])
            raise Conflict(f"several caches begin with {word!r}: {some}", hint="write more of it")
        return _cache(rows[0])

    def let_go(self, tenant: str | None) -> int:
        """Bytes of former caches that are still in the store: of a tenant, or of all."""

        def read(connection: Connection) -> Any:
            if tenant is None:
                return _LET_GO(connection).scalar()
            return _LET_GO_OF_TENANT(connection, tenant=tenant).scalar()

        return int(self._database.read(read) or 0)

    def remove(self, name: str) -> bool:
        """Let go of one. False: there is none."""
        return self._database.write(lambda c: _DROP(c, id=name).rowcount == 1)

    def forget_object(self, name: str) -> None:
        """Let go of what points at an object that is damaged or gone."""
        self._database.write(lambda c: _DROP_OBJECT(c, name=name))

    def forget_unused(self, before: float, *, dry_run: bool = False) -> tuple[int, int]:
        """Let go of those that were not used since `before`. Returns their number and their
        bytes."""
        old = [_cache(r) for r in self._database.read(lambda c: _UNUSED(c, before=before).all())]
        for cache in () if dry_run else old:
            self.remove(cache.id)
        return len(old), sum(cache.size for cache in old)


def _cache(row: tuple[Any, ...]) -> StoredCache:
    return StoredCache(**{c.name: value for c, value in zip(_COLUMNS, row, strict=False)})
