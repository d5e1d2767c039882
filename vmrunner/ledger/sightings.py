"""The reaper's memory of each place between two sweeps.

A place is a scope of a provider. Nodes whose providers of one name have other scopes, as those of
local VMs on two hosts, sweep each its own, and none says anything of another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vmrunner.ledger.database import Database
from vmrunner.ledger.sql import Connection, delete, or_, select
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import SIGHTINGS

if TYPE_CHECKING:
    from vmrunner.core.reap_plan import Sighting

_s = SIGHTINGS.c

_INSERT = inserts(SIGHTINGS)
#: Those without a place are from before places were written, and nobody reads them.
_CLEAR = Prepared(
    lambda: delete(SIGHTINGS).where(
        _s.provider == arg("provider"), or_(_s.place == arg("place"), _s.place == "")
    )
)
_FORGET = Prepared(lambda: delete(SIGHTINGS).where(_s.place == arg("place")))
_LIST = Prepared(
    lambda: select(_s.what, _s.subject, _s.place, _s.sweep, _s.begun).where(
        _s.provider == arg("provider"), _s.place == arg("place")
    )
)

_LATCHED = Prepared(
    lambda: select(_s.provider, _s.place, _s.sweep, _s.begun).where(_s.what == arg("what"))
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

    def record(self, provider: str, places: Iterable[str], sightings: Collection[Sighting]) -> None:
        """Remember these of these places and no others, until the next sweep there."""
        rows = [
            {
                "provider": provider,
                "place": s.place,
                "what": s.what.value,
                "subject": s.subject,
                "sweep": s.sweep,
                "begun": s.begun,
            }
            for s in sightings
        ]
        swept = sorted({*places, *(s.place for s in sightings)})

        def work(connection: Connection) -> None:
            for place in swept:
                _CLEAR(connection, provider=provider, place=place)
            _INSERT.many(connection, rows)

        self._database.write(work)

    def latched(self) -> Sequence[Latch]:
        """The scopes in which the cap on orphans holds them back."""
        from vmrunner.core.reap_plan import SightingKind

        what = SightingKind.LATCH.value
        return [Latch(*row) for row in self._database.read(lambda c: _LATCHED(c, what=what).all())]

    def forget(self, places: Iterable[str]) -> None:
        """Remember nothing of places that nobody sweeps any more."""
        unswept = sorted(places)

        def work(connection: Connection) -> None:
            for place in unswept:
                _FORGET(connection, place=place)

        if unswept:
            self._database.write(work)

    def list(self, provider: str, places: Iterable[str]) -> frozenset[Sighting]:
        """The sightings of these places that were remembered last."""
        from vmrunner.core.reap_plan import Sighting, SightingKind

        swept = sorted(places)
        rows = self._database.read(
            lambda c: [row for p in swept for row in _LIST(c, provider=provider, place=p).all()]
        )
        return frozenset(
            Sighting(
                what=SightingKind(row[0]), subject=row[1], place=row[2], sweep=row[3], begun=row[4]
            )
            for row in rows
        )
