"""GARM's commands. An instance of GARM's is a build here: its provider id is the build's id."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner.api import entry
from vmrunner.errors import Conflict, NotFound
from vmrunner.integrations.garm import bootstrap
from vmrunner.integrations.garm.bootstrap import CONTROLLER, NAME, POOL, Bootstrap

if TYPE_CHECKING:
    from vmrunner.config.forges import GarmSettings
    from vmrunner.model import BuildRecord
    from vmrunner.services.protocols import Service

#: Versions of GARM's interface.
INTERFACES: Final = ("v0.1.0", "v0.1.1")


class GarmProvider:
    """The instances of one GARM. No other builds are seen."""

    def __init__(self, service: Service, settings: GarmSettings, controller: str) -> None:
        self._service = service
        self._settings = settings
        self._controller = controller

    def create(self, pool: str, wanted: Bootstrap) -> dict[str, Any]:
        """Start a runner; the same request again is the same runner, until that has ended. Raises
        Conflict when one of its name lives that is another."""
        such = {CONTROLLER: self._controller, NAME: wanted.name}
        former = self._service.ledger.builds.list(labels=such, mine=True)
        number = sum(row.finished or row.cancel is not None for row in former)
        request = bootstrap.request(wanted, self._settings, self._controller, pool, number)
        row, _ = entry.enter(self._service, request)
        self._service.ensure_served(row.spec.provider)
        return self._document(row)

    def get(self, instance: str) -> dict[str, Any]:
        """Raises NotFound, for one that has ended too."""
        return self._document(self._live(instance))

    def instances(self, pool: str) -> list[dict[str, Any]]:
        """Return the live ones of a pool."""
        return [self._document(row) for row in self._rows({POOL: pool})]

    def delete(self, instance: str) -> None:
        """End one. Nothing is done where it is not there any more."""
        with contextlib.suppress(NotFound):
            self._end([self._live(instance)])

    def remove_all(self) -> None:
        """End all of this GARM."""
        self._end(self._rows({}))

    def start(self, instance: str) -> None:
        """Raises Conflict for one that has ended: no VM is used twice."""
        if self._live(instance).cancel is not None:
            raise Conflict(f"{instance} is being ended, and no VM is started twice")

    def validate(self, extra: Mapping[str, Any] | None) -> None:
        """Raises ConfigError for a pool that could not have a runner."""
        bootstrap.shape(self._settings, "", extra)

    def _rows(self, labels: Mapping[str, str]) -> list[BuildRecord]:
        such = {CONTROLLER: self._controller, **labels}
        return self._service.ledger.builds.list(active=True, labels=such, mine=True)

    def _live(self, instance: str) -> BuildRecord:
        """Find one by its provider id, or by its name: GARM uses that where it never heard the
        id."""
        for row in self._rows({}):
            if instance in (row.id, row.spec.labels.get(NAME)):
                return row
        raise NotFound(f"there is no instance {instance!r} of this GARM, or it has ended")

    def _end(self, rows: list[BuildRecord]) -> None:
        for row in rows:
            self._service.cancel(row.id, why="GARM asked for it")
        self._service.ensure_ended(rows)

    def _document(self, row: BuildRecord) -> dict[str, Any]:
        return {
            "provider_id": row.id,
            "name": row.spec.labels.get(NAME, ""),
            "os_type": "linux",
            "status": "running" if row.cancel is None else "stopped",
            "pool_id": row.spec.labels.get(POOL, ""),
        }
