"""Objects of the store: a row before the bytes, and until after them.

What uploads and what collects garbage never wait for each other. Each step is a compare-and-set on
the object's row: the second to come finds another state, and lets go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from vmrunner.errors import NotFound
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.sql import Connection, and_, case, delete, exists, func, or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import BUILDS, CACHES, OBJECTS
from vmrunner.model import BuildState, ObjectKind, ObjectState, StoredObject

_b, _o = BUILDS.c, OBJECTS.c
_COLUMNS: Final = (
    _o.name, _o.kind, _o.digest, _o.size, _o.created_at, _o.tenant, _o.build, _o.state,
    _o.unreferenced_since,
)  # fmt: skip
_PAGE: Final = 256
_STORED: Final = ObjectState.STORED.value
_SOURCE: Final = ObjectKind.SOURCE.value
_ARG_NAME: Final = _o.name == arg("name")

#: A build is to have this source.
_AWAITED: Final = exists().where(_b.source_object == _o.name, _b.state != BuildState.FINISHED.value)
#: Something points at it: a build that is to have this source, or that has this log; a cache.
_REFERENCED: Final = case(
    (_o.kind == _SOURCE, _AWAITED),
    (_o.kind == ObjectKind.CACHE.value, exists().where(CACHES.c.object == _o.name)),
    else_=exists().where(
        _b.id == _o.build, or_(_b.log_object == _o.name, _b.artifacts_object == _o.name)
    ),
)
_INSERT = inserts(OBJECTS)
_GET = Prepared(lambda: select(*_COLUMNS).where(_ARG_NAME))
_FIND_SOURCE = (
    _o.kind == _SOURCE,
    _o.state == _STORED,
    _o.tenant == arg("tenant"),
    _o.digest == arg("digest"),
)
#: One that is stored again, or submitted, stays for a day from now on, whatever gc saw before.
_RENEW_SOURCE = Prepared(
    lambda: (
        update(OBJECTS)
        .where(*_FIND_SOURCE)
        .values(unreferenced_since=arg("since"))
        .returning(*_COLUMNS)
    )
)
_UNUSED: Final = (_o.kind == _SOURCE, _o.state == _STORED, ~_AWAITED)
_ALL_UNUSED_BYTES = Prepared(lambda: select(func.sum(_o.size)).where(*_UNUSED))
_UNUSED_BYTES = Prepared(
    lambda: select(func.sum(_o.size)).where(*_UNUSED, _o.tenant == arg("tenant"))
)
_CONCLUDE = Prepared(
    lambda: (
        update(OBJECTS)
        .where(_ARG_NAME, _o.state == ObjectState.UPLOADING.value)
        .values(state=_STORED, unreferenced_since=arg("since"))
    )
)
_ADOPT = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("build"),
            _b.state != BuildState.FINISHED.value,
            _b.source_object.is_(None),
        )
        .values(source_object=arg("name"))
    )
)


def _points(column: Any) -> Prepared:
    """A build that ended begins to point at its object: once, and never after a removal."""
    return Prepared(
        lambda: (
            update(BUILDS)
            .where(
                _b.id == arg("build"),
                _b.epoch == arg("epoch"),
                _b.state == BuildState.FINISHED.value,
                _b.removed_at.is_(None),
                column.is_(None),
            )
            .values({column: arg("name")})
        )
    )


_POINT = {
    ObjectKind.LOG.value: _points(_b.log_object),
    ObjectKind.ARTIFACTS.value: _points(_b.artifacts_object),
}
_LOG_OF = Prepared(lambda: select(*_COLUMNS).where(_b.id == arg("build"), _o.name == _b.log_object))
#: No claim to a log lasts so long, in seconds: one that ends later is of a clock that was wrong.
LONGEST_LOG_CLAIM: Final = 1200.0


def _log_is_due() -> Any:
    return or_(_b.log_due <= arg("now"), _b.log_due > arg("latest"))


_LOGS_DUE = Prepared(
    lambda: select(_b.id).where(_log_is_due()).order_by(_b.log_due).limit(arg("limit"))
)
_PUT_OFF_LOG = Prepared(
    lambda: update(BUILDS).where(_b.id == arg("build"), _log_is_due()).values(log_due=arg("due"))
)
_LIST = Prepared(
    lambda: (
        select(*_COLUMNS, _REFERENCED).where(_o.name > arg("after")).order_by(_o.name).limit(_PAGE)
    )
)
_KNOWN = Prepared(
    lambda: select(_o.name).where(_o.name > arg("after"), _o.name <= arg("last")).order_by(_o.name)
)
_MARK = Prepared(
    lambda: (
        update(OBJECTS)
        .where(_ARG_NAME, _o.state == _STORED, _o.unreferenced_since.is_(None), ~_REFERENCED)
        .values(unreferenced_since=arg("now"))
    )
)
_UNMARK = Prepared(
    lambda: (
        update(OBJECTS)
        .where(_ARG_NAME, _o.state == _STORED, _REFERENCED)
        .values(unreferenced_since=None)
    )
)
_MARK_DELETING = Prepared(
    lambda: (
        update(OBJECTS)
        .where(
            _ARG_NAME,
            _o.state != ObjectState.DELETING.value,
            and_(_o.unreferenced_since < arg("before"), ~_REFERENCED),
        )
        .values(state=ObjectState.DELETING.value)
    )
)
_FORGET = Prepared(lambda: delete(OBJECTS).where(_ARG_NAME, _o.state == ObjectState.DELETING.value))


def referenced_source(connection: Connection, tenant: str, digest: str) -> str:
    """The tenant's source of this digest, to be pointed at in this transaction. Raises NotFound."""
    row = _RENEW_SOURCE(connection, tenant=tenant, digest=digest, since=None).first()
    if row is None:
        raise NotFound(f"there is no source {digest}", hint="upload it, then submit again")
    return str(row[0])


def stored(connection: Connection, name: str) -> bool:
    """Note in this transaction, which points at it, that an object is stored. False: its time was
    over."""
    return _CONCLUDE(connection, name=name, since=None).rowcount == 1


class Objects:
    """All objects of this ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, new: StoredObject) -> None:
        """Note an object that is about to be uploaded. It has a day for that."""
        values: dict[str, Any] = {column.name: getattr(new, column.name) for column in _COLUMNS}
        values |= {"kind": new.kind.value, "state": new.state.value}
        values["unreferenced_since"] = new.created_at
        self._database.write(lambda c: _INSERT(c, **values))

    def get(self, name: str) -> StoredObject:
        """Raises NotFound."""
        row = self._database.look_up(_GET, name=name)
        if row is None:
            raise NotFound(f"there is no object {name}")
        return _object(row)

    # --- sources ---

    def renewed_source(self, tenant: str, digest: str, now: float) -> StoredObject | None:
        """The tenant's stored source of this digest; it stays for a day from now on. None: it is
        to be uploaded, again if it is being deleted."""
        row = self._database.write(
            lambda c: _RENEW_SOURCE(c, tenant=tenant, digest=digest, since=now).first()
        )
        return None if row is None else _object(row)

    def unused_source_bytes(self, tenant: str) -> tuple[int, int]:
        """Bytes of stored sources that no build waits for: a tenant's, and of all."""

        def read(connection: Connection) -> tuple[Any, Any]:
            own = _UNUSED_BYTES(connection, tenant=tenant).scalar()
            return own, _ALL_UNUSED_BYTES(connection).scalar()

        own, all_ = self._database.read(read)
        return int(own or 0), int(all_ or 0)

    def conclude_source(self, name: str, now: float) -> bool:
        """Note that a source is stored. False: the tenant has one of this digest already, or this
        one's time was over; then gc deletes its bytes."""
        try:
            return self._database.write(lambda c: _CONCLUDE(c, name=name, since=now).rowcount) == 1
        except Duplicate:
            return False

    def adopt_source(self, build: str, tenant: str, digest: str) -> bool:
        """Point a build at its source, which lay in a spool when it was submitted. False: it has
        ended, or has one already."""

        def work(connection: Connection) -> bool:
            name = referenced_source(connection, tenant, digest)
            return _ADOPT(connection, build=build, name=name).rowcount == 1

        return self._database.write(work)

    # --- what a build left ---

    def conclude(self, item: StoredObject, *, epoch: int) -> bool:
        """Point the build at its stored log or artifacts, at the epoch that the bytes are of. From
        then on a log's chunks may go. False: the build has another already, or is removed, or the
        upload took too long; then gc deletes its bytes."""
        point = _POINT[item.kind.value]

        def work(connection: Connection) -> bool:
            if not point(connection, build=item.build, epoch=epoch, name=item.name).rowcount:
                return False
            if not _CONCLUDE(connection, name=item.name, since=None).rowcount:
                raise _TooLate
            return True

        try:
            return self._database.write(work)
        except _TooLate:
            return False

    def log_of(self, build: str) -> StoredObject | None:
        """The stored log of a build; None while it is in the ledger, or there is none."""
        row = self._database.look_up(_LOG_OF, build=build)
        return None if row is None else _object(row)

    def logs_due(self, now: float, limit: int) -> list[str]:
        """The ids of builds that ended and of whose logs a part is still in the ledger."""
        return self._database.read(
            lambda c: [
                r[0]
                for r in _LOGS_DUE(c, now=now, latest=now + LONGEST_LOG_CLAIM, limit=limit).all()
            ]
        )

    def put_off_logs(self, builds: Sequence[str], *, now: float, due: float) -> list[str]:
        """Take these logs to upload them: until `due` no other will. Returns those that no other
        had taken, in their order."""
        latest = now + LONGEST_LOG_CLAIM

        def work(connection: Connection) -> set[str]:
            return {
                build
                for build in sorted(builds)
                if _PUT_OFF_LOG(connection, build=build, now=now, latest=latest, due=due).rowcount
            }

        taken = self._database.write(work)
        return [build for build in builds if build in taken]

    # --- gc ---

    def page(self, after: str) -> list[tuple[StoredObject, bool]]:
        """The next objects by name, each with true where something points at it. That may change
        meanwhile: what follows compares again."""
        rows = self._database.read(lambda c: _LIST(c, after=after).all())
        return [(_object(row), bool(row[-1])) for row in rows]

    def mark(self, unreferenced: Iterable[str], referenced: Iterable[str], now: float) -> None:
        """Note since when nothing points at these, and that something does at those."""
        unreferenced, referenced = list(unreferenced), list(referenced)

        def work(connection: Connection) -> None:
            for name in unreferenced:
                _MARK(connection, name=name, now=now)
            for name in referenced:
                _UNMARK(connection, name=name)

        if unreferenced or referenced:
            self._database.write(work)

    def mark_deleting(self, *names: str, unreferenced_before: float) -> set[str]:
        """Decide that these are to be deleted, if nothing has pointed at them since before then.
        Returns those of which it is decided."""
        ordered, before = sorted(names), unreferenced_before

        def work(connection: Connection) -> set[str]:
            return {
                name
                for name in ordered
                if _MARK_DELETING(connection, name=name, before=before).rowcount == 1
            }

        return self._database.write(work) if ordered else set()

    def forget(self, *names: str) -> None:
        """Drop the rows of those that are deleted."""
        rows = [{"name": name} for name in sorted(names)]
        if rows:
            self._database.write(lambda c: _FORGET.many(c, rows))

    def known(self, after: str, last: str) -> set[str]:
        """Return the names of all objects after the one name, up to the other."""
        return self._database.read(
            lambda c: {row[0] for row in _KNOWN(c, after=after, last=last).all()}
        )


class _TooLate(Exception):
    """The object's row is not `uploading` any more: all that was written goes back."""


def _object(row: tuple[Any, ...]) -> StoredObject:
    values = {column.name: value for column, value in zip(_COLUMNS, row, strict=False)}
    values |= {"kind": ObjectKind(values["kind"]), "state": ObjectState(values["state"])}
    return StoredObject(**values)
