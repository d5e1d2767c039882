"""Removal of what a build left, when its time is over or a user asks for it: little by little, so
that no other write waits for long."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vmrunner.errors import Conflict, LedgerError, VmrunnerError
from vmrunner.ledger.build_writes import fetch
from vmrunner.ledger.database import Database
from vmrunner.ledger.sql import (
    ColumnElement,
    Connection,
    delete,
    exists,
    func,
    select,
    tuple_,
    update,
)
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, CHUNKS, OBJECTS
from vmrunner.model import BuildState, ObjectState

log = logging.getLogger("vmrunner.serve")

_b, _c, _o = BUILDS.c, CHUNKS.c, OBJECTS.c

#: How many chunks are removed in one transaction: some 4 MiB.
_CHUNKS: Final = 16
#: How many builds are looked for at once.
_BUILDS: Final = 256
#: Seconds from one to the next, at least: those who wait for their turn get it.
_PAUSE: Final = 0.02

_FINISHED: Final = _b.state == BuildState.FINISHED.value
_KEPT: Final = (
    _FINISHED,
    _b.removed_at.is_(None),
    _b.finished_at < arg("now"),
    _b.finished_at < arg("now") - func.coalesce(_b.keep_logs, arg("keep")),
)
_HAS_CHUNKS: Final = exists().where(_c.build == _b.id)
_OLD = Prepared(
    lambda: (
        select(_b.finished_at, _b.id, _HAS_CHUNKS)
        .where(*_KEPT, tuple_(_b.finished_at, _b.id) > tuple_(arg("at"), arg("id")))
        .order_by(_b.finished_at, _b.id)
        .limit(_BUILDS)
    )
)
_COUNT = Prepared(lambda: select(func.count(), func.sum(_b.log_bytes)).where(*_KEPT))
_FIRST = Prepared(lambda: select(_c.seq).where(_c.build == arg("build")).order_by(_c.seq).limit(1))
_REMOVE = Prepared(lambda: delete(CHUNKS).where(_c.build == arg("build"), _c.seq < arg("end")))
_LAST = Prepared(
    lambda: select(_c.seq).where(_c.build == arg("build")).order_by(_c.seq.desc()).limit(1)
)
_REMOVE_LAST = Prepared(lambda: delete(CHUNKS).where(_c.build == arg("build"), _c.seq > arg("end")))
_LOG_DONE = Prepared(lambda: update(BUILDS).where(_b.id == arg("build")).values(log_due=None))


def _marks(*which: ColumnElement[bool]) -> Prepared:
    """A statement by which a build that ended has nothing more."""
    return Prepared(
        lambda: (
            update(BUILDS)
            .where(_b.id == arg("build"), _FINISHED, *which)
            .values(
                log_object=None,
                artifacts_object=None,
                collected=None,
                log_due=None,
                removed_at=arg("now"),
            )
        )
    )


_MARK = _marks()
_MARK_WITHOUT_CHUNKS = _marks(~_HAS_CHUNKS)
_LET_GO = Prepared(
    lambda: (
        update(OBJECTS)
        .where(
            _o.build == arg("build"),
            _o.state == ObjectState.STORED.value,
            _o.unreferenced_since.is_(None),
        )
        .values(unreferenced_since=arg("now"))
    )
)


@dataclass(frozen=True, slots=True)
class RemovedBuilds:
    """The builds that were dealt with, and those that could not be."""

    count: int
    failed: int


class Removals:
    """Logs and artifacts of builds that ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_old(self, now: float, keep: float) -> tuple[int, int]:
        """The number of builds whose time is over, and the bytes of their logs."""
        row = self._database.read(lambda c: _COUNT(c, now=now, keep=keep).first())
        assert row is not None
        return row[0], int(row[1] or 0)

    def remove_old(
        self, now: float, keep: float, *, sleep: Callable[[float], object] = time.sleep
    ) -> RemovedBuilds:
        """Remove what builds left that ended `keep` seconds ago, or as long ago as they said
        themselves. Raises LedgerError when the database fails."""
        removed, failed, last = 0, 0, (-math.inf, "")
        while builds := self._database.read(
            lambda c: _OLD(c, now=now, keep=keep, at=last[0], id=last[1]).all()  # noqa: B023
        ):
            last = builds[-1][0], builds[-1][1]
            stored = [build for _, build, has_chunks in builds if not has_chunks]
            if stored:
                self._database.write(lambda c: _let_go(c, stored, now))  # noqa: B023
                removed += len(stored)
                sleep(_PAUSE)
            for build in (build for _, build, has_chunks in builds if has_chunks):
                try:
                    self.remove(build, now, sleep=sleep)
                except LedgerError:
                    raise
                except VmrunnerError as error:
                    log.warning("retention: what %s left stays: %s", build, error)
                    failed += 1
                else:
                    removed += 1
                sleep(_PAUSE)
        return RemovedBuilds(removed, failed)

    def remove(
        self, build: str, now: float, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Remove the log and let go of the stored objects of a build that ended. Raises Conflict
        when it has not, NotFound."""
        self._little_by_little(lambda c: _step(c, build, now), sleep)

    def drop_stored(self, build: str, *, sleep: Callable[[float], object] = time.sleep) -> None:
        """Drop the chunks of a log that lies in the store. The last go first: a reader meanwhile
        finds a beginning without a gap, and the rest in the store."""
        self._little_by_little(lambda c: _drop_last(c, build), sleep)

    def _little_by_little(
        self, step: Callable[[Connection], bool], sleep: Callable[[float], object]
    ) -> None:
        """Take one step after the other until that was the last; others write in between."""
        done = False
        while not done:
            began = time.monotonic()
            done = self._database.write(step)
            if not done:
                sleep(max(_PAUSE, time.monotonic() - began))


def _let_go(connection: Connection, builds: Sequence[str], now: float) -> None:
    """Let go of what lies in the store, of builds that have nothing here."""
    rows = [{"build": build, "now": now} for build in sorted(builds)]
    _MARK_WITHOUT_CHUNKS.many(connection, rows)
    _LET_GO.many(connection, rows)


def _drop_last(connection: Connection, build: str) -> bool:
    """Drop some chunks, if the log is stored. True if no more are there."""
    if fetch(connection, build).log_object is None:
        return True
    last = _LAST(connection, build=build).scalar()
    if last is not None:
        _REMOVE_LAST(connection, build=build, end=last - _CHUNKS)
        if _LAST(connection, build=build).scalar() is not None:
            return False
    _LOG_DONE(connection, build=build)
    return True


def _step(connection: Connection, build: str, now: float) -> bool:
    """Remove some chunks. True if those were the last, and all is let go of."""
    found = fetch(connection, build)
    if not found.finished:
        raise Conflict(f"build {build} is {found.state}", hint="wait for its end, or cancel it")
    first = _FIRST(connection, build=build).scalar()
    if first is not None:
        _REMOVE(connection, build=build, end=first + _CHUNKS)
        if _FIRST(connection, build=build).scalar() is not None:
            return False
    _MARK(connection, build=build, now=now)
    _LET_GO(connection, build=build, now=now)
    return True
