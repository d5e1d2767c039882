"""Engines that drive builds from this ledger, and the leases that only one of them holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Final

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger import upgrade
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.sql import Connection, and_, delete, func, or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import ENGINES, HEARTBEATS, LEASES
from vmrunner.ledger.transfer_types import Lease, Member
from vmrunner.model import STARTING, Process

#: So many seconds the reaper's own writes wait for other writers: a kill comes after them.
REAPER_WAIT: Final = 2.0

_e, _l, _h = ENGINES.c, LEASES.c, HEARTBEATS.c

_JOIN = inserts(ENGINES)
_BEAT = Prepared(
    lambda: (
        update(ENGINES)
        .where(_e.id == arg("id"))
        .values(
            seen_at=arg("now"),
            ahead=arg("ahead"),
            providers=func.coalesce(arg("providers"), _e.providers),
        )
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
        _e.id, _e.process, _e.kind, _e.joined_at, _e.seen_at, _e.providers, _e.version, _e.ahead
    ).order_by(_e.joined_at, _e.id)
)
_ACQUIRE = Prepared(
    lambda: (
        update(LEASES)
        .where(
            _l.name == arg("name"),
            or_(
                _l.holder == arg("holder"),
                and_(_l.holder == arg("former"), _l.until == arg("seen")),
            ),
        )
        .values(holder=arg("holder"), until=arg("until"))
    )
)
_NEW_LEASE = inserts(LEASES)
_LEASE = Prepared(lambda: select(_l.holder, _l.until).where(_l.name == arg("name")))
_HOLDERS = Prepared(lambda: select(_l.name, _l.holder))
_DONE = Prepared(
    lambda: (
        update(HEARTBEATS).where(_h.name == arg("name")).values(holder=arg("holder"), at=arg("now"))
    )
)
_FIRST = inserts(HEARTBEATS)
_HEARTBEATS = Prepared(lambda: select(_h.name, _h.at, _h.holder))
_CLOCK = Prepared(lambda: select(func.date_part("epoch", func.clock_timestamp())))  # PostgreSQL's
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
            "process": codec.process_text(process),
            "kind": kind,
            "joined_at": now,
            "seen_at": now,
            "providers": codec.names_text(providers),
            "version": upgrade.known()[-1],
        }
        with contextlib.suppress(Duplicate):
            self._database.write(lambda c: _JOIN(c, ahead=self._ahead(c), **row))

    def beat(self, engine_id: str, now: float, providers: Iterable[str] | None = None) -> bool:
        """Note that it still drives builds; with `providers`, at which from now on. False: it was
        taken for dead and removed."""
        names = None if providers is None else codec.names_text(providers)
        return self._database.write(
            lambda c: (
                _BEAT(c, id=engine_id, now=now, ahead=self._ahead(c), providers=names).rowcount == 1
            )
        )

    def leave(self, engine_id: str) -> None:
        """Say that it does no more; what its parent said before it goes with it."""
        self._database.write(lambda c: _LEAVE(c, id=engine_id))

    def list(self) -> list[Member]:
        """All members that joined and did not leave, alive or not."""
        return [
            Member(
                id=row[0],
                process=codec.process_from(row[1]),
                kind=row[2],
                joined_at=row[3],
                seen_at=row[4],
                providers=codec.names_from(row[5]),
                version=row[6],
                outdated=row[6] not in ("", upgrade.known()[-1]),
                ahead=row[7],
            )
            for row in self._database.read(lambda c: _LIST(c).all())
        ]

    def acquire(self, name: str, holder: str, until: float, former: Lease | None = None) -> bool:
        """Take or renew the lease `name`. False: another holds it. `former`: another's lease that
        counts as over; it is taken from that one unless it was renewed since. `until` tells people
        how long it lasts at most, and others by its change that it was renewed; it is compared with
        no clock. Raises LedgerError soon where the ledger is locked."""
        theirs, seen = (former.holder, former.until) if former is not None else (holder, until)

        def work(connection: Connection) -> bool:
            if _ACQUIRE(
                connection, name=name, holder=holder, until=until, former=theirs, seen=seen
            ).rowcount:
                return True
            if _LEASE(connection, name=name).first() is not None:
                return False
            _NEW_LEASE(connection, name=name, holder=holder, until=until)
            return True

        try:
            return self._database.write(work, patience=REAPER_WAIT)
        except Duplicate:  # another process made the row in between
            return False

    def lease(self, name: str) -> Lease | None:
        """A lease as it is now; None when it is free."""
        row = self._database.look_up(_LEASE, name=name)
        return None if row is None else Lease(holder=row[0], until=row[1])

    def holders(self) -> dict[str, str]:
        """The holders of leases, by name."""
        return {row[0]: row[1] for row in self._database.read(lambda c: _HOLDERS(c).all())}

    def record_heartbeat(self, name: str, holder: str, now: float) -> None:
        """Say that something which is done again and again was done."""
        with contextlib.suppress(Duplicate):  # another process said so in between
            self._database.write(lambda c: beat(c, name, holder, now), patience=REAPER_WAIT)

    def heartbeats(self, ahead: Mapping[str, float] | None = None) -> dict[str, float]:
        """The time at which each periodic task was done last, by its doer's clock; with `ahead`,
        the seconds by which engines' clocks are ahead, by the clock that all share."""
        found = self._database.read(lambda c: _HEARTBEATS(c).all())
        return {name: at - (ahead or {}).get(holder, 0.0) for name, at, holder in found}

    def now(self) -> float:
        """The time by the clock that all users of this ledger share: its database's. SQLite's is
        this host's."""
        if self._database.sqlite:
            return time.time()
        return self._database.read(lambda c: float(_CLOCK(c).scalar()))

    def _ahead(self, connection: Connection) -> float:
        """Seconds by which this host's clock is ahead of the database's."""
        if self._database.sqlite:
            return 0.0
        before = time.time()
        database_now = float(_CLOCK(connection).scalar())
        return (before + time.time()) / 2 - database_now

    def release(self, name: str, holder: str) -> None:
        """Give it back; nothing when another holds it. Raises LedgerError as `acquire` does."""
        self._database.write(lambda c: _RELEASE(c, name=name, holder=holder), patience=REAPER_WAIT)
