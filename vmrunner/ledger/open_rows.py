"""The open rows and what drives them, read once and from then on by what changed.

Each reader has its own. A whole read every five minutes is the truth: what a change could miss
(a database that was set back) is wrong for so long at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.row_reading import readable
from vmrunner.ledger.sql import ColumnElement, Connection, and_, or_, select
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, INSTANCES, LEDGER, REVISIONS
from vmrunner.model import BuildRecord, BuildState, Instance, InstanceState, Role

T = TypeVar("T")

WHOLE: Final = 300.0  # seconds between two whole reads

_b, _i = BUILDS.c, INSTANCES.c
_OPEN: Final = _i.state != InstanceState.GONE.value
_DRIVEN: Final = and_(
    _b.state != BuildState.FINISHED.value,
    or_(_b.state != BuildState.QUEUED.value, _b.cancel.is_not(None)),
)
#: What engines mind: a template's VM is its maker's until it dies.
_MINDED: Final = and_(
    _OPEN, or_(_i.role != Role.IMAGE.value, _i.state == InstanceState.DELETING.value)
)
MARK = Prepared(lambda: select(REVISIONS.c.last, select(LEDGER.c.generation).scalar_subquery()))


def _instances(which: ColumnElement[bool]) -> tuple[Prepared, Prepared]:
    """Return the statements for all of these, and for those that changed."""
    return (
        Prepared(lambda: select(*codec.INSTANCE, which).where(which).order_by(_i.id)),
        Prepared(lambda: select(*codec.INSTANCE, which).where(_i.revision > arg("seen"))),
    )


_EVERY, _OF_ENGINES = _instances(_OPEN), _instances(_MINDED)
_ALL_BUILDS = Prepared(lambda: select(*codec.BUILD, _DRIVEN).where(_DRIVEN).order_by(_b.id))
_CHANGED_BUILDS = Prepared(lambda: select(*codec.BUILD, _DRIVEN).where(_b.revision > arg("seen")))


class Mark(NamedTuple):
    """A moment of a ledger: the last number of its change counter, the ledger's generation, and how
    many servers answered by then."""

    revision: int
    generation: str
    servers: int

    def leads_to(self, later: Mark) -> bool:
        """True if all that changed from here on has a higher number."""
        return later[1:] == self[1:] and later.revision >= self.revision


@dataclass(frozen=True, slots=True)
class OpenRows:
    """All that is open. `rows` and `builds` are by id, oldest first; of `unread` ids nothing is
    known but that they are open. `changed`: ids of those that differ from what was read before,
    open or not; None: whichever."""

    rows: Mapping[str, Instance]
    builds: Mapping[str, BuildRecord]
    unread: frozenset[str]
    changed: frozenset[str] | None


@dataclass(slots=True)
class _Table(Generic[T]):
    """The open rows of one table, as they were read last."""

    decode: Callable[[Sequence[Any]], T]
    decoded: dict[str, T] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    _read: dict[str, Sequence[Any]] = field(default_factory=dict)  # what `decoded` was made from

    def take(self, found: Sequence[Sequence[Any]]) -> set[str]:
        """Take in rows that end with whether they are open; returns their ids."""
        self._take(found, [row[0] for row in found if not row[-1]])
        return {row[0] for row in found}

    def take_all(self, found: Sequence[Sequence[Any]]) -> None:
        """Take in all rows that are open."""
        self._take(found, (self.decoded.keys() | self.unread) - {row[0] for row in found})

    def _take(self, found: Sequence[Sequence[Any]], gone: Iterable[str]) -> None:
        """Decode the rows that differ. When all are read, most are as they were."""
        self.decoded = dict(self.decoded)  # the former one may be in use still
        fresh = [row for row in found if row[-1] and row != self._read.get(row[0])]
        values = readable(lambda row: (row[0], self.decode(row)), fresh)
        values.sort(key=lambda value: value[0])
        for name in (*gone, *values.unread):
            self.decoded.pop(name, None)
            self._read.pop(name, None)
            self.unread.discard(name)
        newest = next(reversed(self.decoded), "")
        sort = any(name < newest and name not in self.decoded for name, _ in values)
        self.decoded.update(values)
        if sort:
            self.decoded = dict(sorted(self.decoded.items()))
        self.unread -= {name for name, _ in values}
        self.unread |= values.unread
        self._read |= {row[0]: row for row in fresh if row[0] not in values.unread}


class OpenRowsReader:
    """One reader of what is open. `images`: of the VMs too that templates are made of, which no
    engine minds while they live."""

    def __init__(self, database: Database, *, images: bool) -> None:
        self._database = database
        self._all, self._changed = _EVERY if images else _OF_ENGINES
        self._lock = threading.Lock()
        self._instances = _Table(codec.instance)
        self._builds = _Table(codec.build)
        self._mark: Mark | None = None
        self._whole = 0.0

    def read(self, now: float) -> OpenRows:
        """Read what changed, or all when it is time; `now` is monotonic. The instances are read
        before the builds: one that was read then has a build at least as new."""
        with self._lock:
            changed = self._database.read(lambda c: self._read(c, now))
            return OpenRows(
                rows=self._instances.decoded,
                builds=self._builds.decoded,
                unread=frozenset(self._instances.unread | self._builds.unread),
                changed=changed,
            )

    def _read(self, connection: Connection, now: float) -> frozenset[str] | None:
        row = MARK(connection).first()
        assert row is not None
        mark, before = Mark(row[0], row[1], self._database.servers_met), self._mark
        whole = before is None or not before.leads_to(mark) or not 0 <= now - self._whole < WHOLE
        self._mark = None  # until all is read
        if whole:
            self._instances.take_all(self._all(connection).all())
            self._builds.take_all(_ALL_BUILDS(connection).all())
            self._whole = now
            changed = None
        elif before is not None and mark != before:
            seen = before.revision
            changed = frozenset(
                self._instances.take(self._changed(connection, seen=seen).all())
                | self._builds.take(_CHANGED_BUILDS(connection, seen=seen).all())
            )
        else:
            changed = frozenset()
        self._mark = mark
        return changed
