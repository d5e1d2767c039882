"""Leases of builds that a client watches over HTTP: who does not renew one lets its build end."""

from __future__ import annotations

from sqlalchemy import select, update

from vmrunner.errors import NotFound
from vmrunner.ledger.database import Database, Prepared, arg
from vmrunner.ledger.tables import BUILDS
from vmrunner.model import BuildState

_b = BUILDS.c
_open = (_b.state != BuildState.FINISHED.value, _b.cancel.is_(None))
_RENEW = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.lease_until.is_not(None))
        .values(lease_until=arg("until"))
    )
)
_LAPSED = Prepared(
    lambda: select(_b.id).where(_b.lease_until.is_not(None), _b.lease_until < arg("now"), *_open)
)
_GRANT = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.lease_until.is_not(None), _b.lease_until < arg("until"), *_open)
        .values(lease_until=arg("until"))
    )
)


class SubmitterLeases:
    def __init__(self, database: Database) -> None:
        self._database = database

    def renew(self, build: str, until: float) -> None:
        """Say that its client is there. Raises NotFound where the build has no lease."""
        if not self._database.write(lambda c: _RENEW(c, id=build, until=until).rowcount):
            raise NotFound(f"build {build} has no lease to renew", hint="it belongs to the ledger")

    def lapsed(self, now: float) -> list[str]:
        """Return the builds whose client did not renew its lease in time."""
        return [row[0] for row in self._database.read(lambda c: _LAPSED(c, now=now).all())]

    def grant(self, until: float) -> int:
        """Renew all that would end before: while no server answered, no client could. How many."""
        return self._database.write(lambda c: _GRANT(c, until=until).rowcount)
