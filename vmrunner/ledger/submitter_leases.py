"""Leases of builds that a client watches over HTTP: a build whose lease is not renewed ends."""

from __future__ import annotations

from vmrunner.errors import NotFound
from vmrunner.ledger.database import Database
from vmrunner.ledger.sql import select, update
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS
from vmrunner.model import BuildState

_b = BUILDS.c
_RENEW = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.lease_until.is_not(None))
        .values(lease_until=arg("until"))
    )
)
_OPEN = Prepared(
    lambda: select(_b.id, _b.lease_until).where(
        _b.lease_until.is_not(None),
        _b.state.not_in([BuildState.FINISHED.value, BuildState.HELD.value]),
        _b.cancel.is_(None),
    )
)


class SubmitterLeases:
    def __init__(self, database: Database) -> None:
        self._database = database

    def renew(self, build: str, until: float) -> None:
        """Say that its client is there. Raises NotFound where the build has no lease."""
        if not self._database.write(lambda c: _RENEW(c, id=build, until=until).rowcount):
            raise NotFound(f"build {build} has no lease to renew", hint="it belongs to the ledger")

    def open(self) -> dict[str, float]:
        """The leases of builds that have not ended, each by the clock of the server that renewed it
        last: a renewal shows by its change. A build that is held has ended to its client."""
        return {row[0]: row[1] for row in self._database.read(lambda c: _OPEN(c).all())}
