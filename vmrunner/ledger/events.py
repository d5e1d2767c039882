"""Events of a build, in order: small facts, never a secret."""

from __future__ import annotations

from contextlib import suppress

from vmrunner.errors import NotFound
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.shared_writes import Repeated, SharedWrites
from vmrunner.ledger.sql import Connection, func, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import BUILDS, EVENTS
from vmrunner.model import BuildEvent, EventKind

INSERT_EVENT = inserts(EVENTS)

_NEXT = Prepared(
    lambda: (
        update(BUILDS)
        .where(BUILDS.c.id == arg("id"))
        .values(events=BUILDS.c.events + 1)
        .returning(BUILDS.c.events)
    )
)
_LIST = Prepared(
    lambda: (
        select(EVENTS.c.seq, EVENTS.c.time, EVENTS.c.kind, EVENTS.c.data)
        .where(EVENTS.c.build == arg("build"), EVENTS.c.seq > arg("after"))
        .order_by(EVENTS.c.seq)
    )
)

_FIRST = Prepared(
    lambda: (
        select(EVENTS.c.seq, EVENTS.c.time, EVENTS.c.kind, EVENTS.c.data)
        .where(EVENTS.c.build == arg("build"), EVENTS.c.kind == arg("kind"))
        .order_by(EVENTS.c.seq)
        .limit(1)
    )
)
_SAME = Prepared(
    lambda: (
        select(func.count())
        .select_from(EVENTS)
        .where(
            EVENTS.c.build == arg("build"),
            EVENTS.c.kind == arg("kind"),
            EVENTS.c.time == arg("time"),
            EVENTS.c.data == arg("data"),
        )
    )
)

Value = str | int | float | bool | None


def add_event(
    connection: Connection, build: str, kind: EventKind, now: float, **data: Value
) -> None:
    """Add an event, within a transaction. The build's row is locked by counting, so that numbers
    appear in order and none is skipped. Raises NotFound."""
    seq = _NEXT(connection, id=build).scalar()
    if seq is None:
        raise NotFound(f"there is no build {build}")
    put_event(connection, build, seq, kind, now, **data)


def put_event(
    connection: Connection, build: str, seq: int, kind: EventKind, now: float, **data: Value
) -> None:
    """Add an event under a number that the caller's own UPDATE of the build has counted."""
    text = codec.event_data(data)
    INSERT_EVENT(connection, build=build, seq=seq, time=now, kind=str(kind), data=text)


class Events:
    def __init__(self, database: Database, shared: SharedWrites) -> None:
        self._database = database
        self._shared = shared

    def add(self, build: str, kind: EventKind, now: float, **data: Value) -> None:
        """Raises NotFound."""
        self._shared.write(lambda c: add_event(c, build, kind, now, **data))

    def repeat(self, build: str, kind: EventKind, now: float, **data: Value) -> None:
        """Add an event unless it stands: the write of it may have had no answer."""

        def work(connection: Connection) -> None:
            add_event(connection, build, kind, now, **data)  # first: it waits for a late commit
            text = codec.event_data(data)
            same = _SAME(connection, build=build, kind=str(kind), time=now, data=text)
            if same.scalar() > 1:
                raise Repeated

        with suppress(Repeated):
            self._shared.write(work)

    def list(self, build: str, after: int = 0) -> list[BuildEvent]:
        """Return the events with a number above `after`, in order; they count from 1 for each
        build."""
        return self._database.read(
            lambda c: [codec.event(row) for row in _LIST(c, build=build, after=after).all()]
        )

    def first(self, build: str, kind: EventKind) -> BuildEvent | None:
        """Return the first event of this kind; None when there is none."""
        row = self._database.look_up(_FIRST, build=build, kind=kind.value)
        return None if row is None else codec.event(row)
