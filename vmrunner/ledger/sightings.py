"""The reaper's memory of each provider between two sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, delete, select

from vmrunner.ledger.database import Database
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import SIGHTINGS

if TYPE_CHECKING:
    from vmrunner.core.reap_plan import Sighting

_s = SIGHTINGS.c

_INSERT = inserts(SIGHTINGS)
_CLEAR = Prepared(lambda: delete(SIGHTINGS).where(_s.provider == arg("provider")))
_LIST = Prepared(
    lambda: select(_s.what, _s.subject, _s.sweep, _s.begun).where(_s.provider == arg("provider"))
)


_LATCHED = Prepared(
    lambda: select(_s.provider, _s.subject, _s.sweep, _s.begun).where(_s.what == arg("what"))
)


class Latch(NamedTuple):
    """A place where the cap on orphans was passed, and the sweep that saw it first."""

    provider: str
    place: str
    sweep: str
    begun: float


class Sightings:
    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, provider: str, sightings: Iterable[Sighting]) -> None:
        """Remember these and no others, until the next sweep of this provider."""
        rows = [
            {
                "provider": provider,
                "what": s.what.value,
                "subject": s.subject,
                "sweep": s.sweep,
                "begun": s.begun,
            }
            for s in sightings
        ]

        def work(connection: Connection) -> None:
            _CLEAR(connection, provider=provider)
            _INSERT.many(connection, rows)

        self._database.write(work)

    def latched(self) -> Sequence[Latch]:
        """The scopes in which the cap on orphans holds them back."""
        from vmrunner.core.reap_plan import SightingKind

        what = SightingKind.LATCH.value
        return [Latch(*row) for row in self._database.read(lambda c: _LATCHED(c, what=what).all())]

    def list(self, provider: str) -> frozenset[Sighting]:
        """The sightings that were remembered last."""
        from vmrunner.core.reap_plan import Sighting, SightingKind

        rows = self._database.read(lambda c: _LIST(c, provider=provider).all())
        return frozenset(
            Sighting(what=SightingKind(row[0]), subject=row[1], sweep=row[2], begun=row[3])
            for row in rows
        )
