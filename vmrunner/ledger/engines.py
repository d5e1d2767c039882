"""Engines that drive builds from this ledger, and the leases that only one of them holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from vmrunner.ledger import rows, upgrade
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import ENGINES, HEARTBEATS, LEASES
from vmrunner.ledger.values import Member
from vmrunner.model import STARTING, Process

#: So many seconds the reaper's own writes wait for other writers: a kill comes after them.
REAPER_WAIT: Final = 2.0

_e, _l, _h = ENGINES.c, LEASES.c, HEARTBEATS.c

_JOIN = inserts(ENGINES)
_BEAT = Prepared(
    lambda: (
        update(ENGINES)
        .where(_e.id == arg("id"))
        .values(seen_at=arg("now"), providers=func.coalesce(arg("providers"), _e.providers))
    )
)
_its = ENGINES.alias()
_LEAVE = Prepared(
    lambda: delete(ENGINES).where(
        or_(
            _e.id == arg("id"),
            and_(
                _e.kind == STARTING,
                _e.process.in_(select(_its.c.process).where(_its.c.id == arg("id"))),
            ),
        )
    )
)
_LIST = Prepared(
    lambda: select(
        _e.id, _e.process, _e.kind, _e.joined_at, _e.seen_at, _e.providers, _e.version
    ).order_by(_e.joined_at, _e.id)
)
_ACQUIRE = Prepared(
    lambda: (
        update(LEASES)
        .where(
            _l.name == arg("name"),
            or_(_l.holder == arg("holder"), _l.until <= arg("now"), _l.until > arg("latest")),
        )
        .values(holder=arg("holder"), until=arg("until"))
    )
)
_NEW_LEASE = inserts(LEASES)
_HELD = Prepared(lambda: select(_l.name).where(_l.name == arg("name")))
_DONE = Prepared(
    lambda: (
        update(HEARTBEATS).where(_h.name == arg("name")).values(holder=arg("holder"), at=arg("now"))
    )
)
_FIRST = inserts(HEARTBEATS)
_HEARTBEATS = Prepared(lambda: select(_h.name, _h.at))
_HOLDER = Prepared(lambda: select(_l.holder).where(_l.name == arg("name")))
_RELEASE = Prepared(
    lambda: delete(LEASES).where(_l.name == arg("name"), _l.holder == arg("holder"))
)


def beat(connection: Connection, name: str, holder: str, now: float) -> None:
    """Note, within a transaction, when, or up to when, something was done."""
    if not _DONE(connection, name=name, holder=holder, now=now).rowcount:
        _FIRST(connection, name=name, holder=holder, at=now)


class Engines:
    def __init__(self, database: Database) -> None:
        self._database = database

    def join(
        self,
        engine_id: str,
        process: Process,
        kind: str,
        now: float,
        providers: Iterable[str] = (),
    ) -> None:
        """Say that this process drives builds, at these providers. `kind`: what sort of process,
        for people. To say it again is nothing new: a write that failed may have happened."""
        row = {
            "id": engine_id,
            "process": rows.process_text(process),
            "kind": kind,
            "joined_at": now,
            "seen_at": now,
            "providers": rows.names_text(providers),
            "version": upgrade.known()[-1],
        }
        with contextlib.suppress(Duplicate):
            self._database.write(lambda c: _JOIN(c, **row))

    def beat(self, engine_id: str, now: float, providers: Iterable[str] | None = None) -> bool:
        """Say that it still does; with `providers`, at which from now on. False: somebody took it
        for dead and removed it."""
        names = None if providers is None else rows.names_text(providers)
        return self._database.write(
            lambda c: _BEAT(c, id=engine_id, now=now, providers=names).rowcount == 1
        )

    def leave(self, engine_id: str) -> None:
        """Say that it does no more; what its parent said before it goes with it."""
        self._database.write(lambda c: _LEAVE(c, id=engine_id))

    def list(self) -> list[Member]:
        """Return all that joined and did not leave; whether they live is for the caller to see."""
        return [
            Member(
                id=row[0],
                process=rows.process_from(row[1]),
                kind=row[2],
                joined_at=row[3],
                seen_at=row[4],
                providers=rows.names_from(row[5]),
                version=row[6],
                outdated=row[6] not in ("", upgrade.known()[-1]),
            )
            for row in self._database.read(lambda c: _LIST(c).all())
        ]

    def acquire(self, name: str, holder: str, until: float, now: float) -> bool:
        """Take or renew the lease `name` until `until`. False: another holds it. One that ends
        later than any lease can was taken by a wrong clock, and holds nobody back. Raises
        LedgerError soon where the ledger is locked."""
        latest = until + (until - now)

        def work(connection: Connection) -> bool:
            if _ACQUIRE(
                connection, name=name, holder=holder, until=until, now=now, latest=latest
            ).rowcount:
                return True
            if _HELD(connection, name=name).first() is not None:
                return False
            _NEW_LEASE(connection, name=name, holder=holder, until=until)
            return True

        try:
            return self._database.write(work, patience=REAPER_WAIT)
        except Duplicate:  # another process made the row in between
            return False

    def record_heartbeat(self, name: str, holder: str, now: float) -> None:
        """Say that something which is done again and again was done."""
        with contextlib.suppress(Duplicate):  # another process said so in between
            self._database.write(lambda c: beat(c, name, holder, now), patience=REAPER_WAIT)

    def heartbeats(self) -> dict[str, float]:
        """Return when each periodic task was done last, by whomever."""
        return {row[0]: row[1] for row in self._database.read(lambda c: _HEARTBEATS(c).all())}

    def holder(self, name: str) -> str | None:
        """Return the holder of a lease; None when nobody has it."""
        row = self._database.look_up(_HOLDER, name=name)
        return None if row is None else row[0]

    def release(self, name: str, holder: str) -> None:
        """Give it back; nothing when another holds it. Raises LedgerError as `acquire` does."""
        self._database.write(lambda c: _RELEASE(c, name=name, holder=holder), patience=REAPER_WAIT)
