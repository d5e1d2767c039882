"""The use cases that integrations of forges need, over a fault world's ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vmrunner.config.settings import Settings
from vmrunner.errors import LedgerError
from vmrunner.lib import ids
from vmrunner.model import Reason
from vmrunner.services import requests
from vmrunner.services.requests import CheckedRequest
from vmrunner.services.submit import PackedBuild

if TYPE_CHECKING:
    from tests.faults.github_side import GithubWorld


class Mortal(Protocol):
    """A process that can be killed at its effects."""

    world: GithubWorld
    ledger_down: bool

    def reach(self, point: str) -> None: ...


class PlayedService:
    """One process's `LocalService`."""

    def __init__(self, process: Mortal) -> None:
        self._process = process
        self.world = process.world
        names = process.world.cloud.names
        self.settings = Settings.model_validate(
            {"providers": {name: {"kind": "fake"} for name in names}}
        )

    @property
    def ledger(self) -> Any:
        if self._process.ledger_down or self.world.away:
            raise LedgerError("the test's database is down")
        return self.world.truth

    @property
    def submission(self) -> PlayedService:
        return self

    def host(self, kind: str | None) -> PlayedService:
        return self

    def ensure(self, provider: str, *, staying: bool = False) -> None:
        """There are nodes, or there are none."""

    def ensure_served(self, *providers: str) -> None:
        """So it is here."""
        self._process.reach("an engine is seen to")

    def ensure_ended(self, rows: Any) -> None:
        """And here."""
        self._process.reach("an engine is seen to")

    def check(self, request: Any) -> CheckedRequest:
        return requests.check(request, self.settings)

    def admit(self, checked: CheckedRequest, *, warn: Any) -> CheckedRequest:
        return checked

    def pack(self, checked: CheckedRequest, *, on_image: Any) -> PackedBuild:
        return PackedBuild(id=ids.build_id(), checked=checked)

    def queue(self, packed: PackedBuild, *, submitter: None = None) -> Any:
        self._process.reach("before a build is queued")
        checked = packed.checked
        queued = self.ledger.builds.submit(
            checked.spec,
            id=packed.id,
            now=self.world.clock(),
            secrets=checked.secrets,
        )
        self._answered("after a build is queued")
        return queued

    def cancel(self, build: str, *, why: str = "") -> Any:
        self._process.reach("before a build is cancelled")
        row = self.ledger.builds.request_cancel(build, Reason.USER, self.world.clock(), by=why)
        self._answered("after a build is cancelled")
        return row

    def _answered(self, point: str) -> None:
        self._process.reach(point)
        if self.world.unanswered is not None and self.world.unanswered():
            raise LedgerError("the test's database did not answer")
