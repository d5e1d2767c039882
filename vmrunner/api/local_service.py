"""A service at hand: the ledger of this configuration, and engines of ours or others' for it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from vmrunner.errors import LedgerError, NotFound, Unreadable
from vmrunner.lib import process, wakeup
from vmrunner.model import BuildState, Reason
from vmrunner.services.follow import FOLLOW_INTERVAL

if TYPE_CHECKING:
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.ledger import Ledger
    from vmrunner.model import BuildRecord, Instance, Start, StoredCache
    from vmrunner.reaper.report import Report
    from vmrunner.runtime.engine_host import EngineHost
    from vmrunner.runtime.service_parts import ServiceParts
    from vmrunner.services.artifacts import Artifacts
    from vmrunner.services.destroy import DestroyedVm
    from vmrunner.services.document_types import TestsDocument
    from vmrunner.services.fleet import Fleet
    from vmrunner.services.pools import PoolStatus
    from vmrunner.services.protocols import ServingHost
    from vmrunner.services.sandboxes import SandboxClient
    from vmrunner.services.submit import Submission
    from vmrunner.store.build_log import BuildLog


log = logging.getLogger("vmrunner")


class LocalService:
    """The use cases (`Service`) over the parts of one application."""

    follow_interval: Final = FOLLOW_INTERVAL

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts

    @property
    def ledger(self) -> Ledger:
        return self._parts.ledger

    @property
    def place(self) -> str:
        return self._parts.ledgers.shown

    @property
    def submission(self) -> Submission:
        from vmrunner.services.submit import Submission

        traceparent = os.environ.get("TRACEPARENT", "")
        return Submission.of(self._parts, traceparent=traceparent)

    @property
    def source_bytes(self) -> int:
        return self._parts.settings().limits.source_bytes

    @property
    def paused(self) -> bool:
        return self.ledger.paused

    def host(self, kind: str | None) -> EngineHost:
        return self._parts.host(kind)

    def wake(self) -> None:
        """Let the engines look at once."""
        wakeup.poke(self._parts.paths.wake)

    def ensure_served(self, *providers: str) -> None:
        self._parts.background.ensure(*providers)

    # --- builds ---

    def waiting(self, rows: Iterable[BuildRecord]) -> dict[str, str]:
        queued = [row for row in rows if row.state is BuildState.QUEUED]
        if not queued:
            return {}
        from vmrunner.services import queue_reasons

        return queue_reasons.waiting(self.ledger, self._parts.limits(), queued)

    def starts(self, rows: Iterable[BuildRecord]) -> dict[str, Start]:
        return self.ledger.instances.starts([row.instance for row in rows if row.instance])

    def costed(self, rows: Sequence[BuildRecord]) -> list[BuildRecord]:
        if all(row.finished for row in rows):
            return list(rows)
        from vmrunner.services.costs import until_now

        return until_now(self.ledger, self._parts.providers, rows)

    def named(self, rows: Iterable[BuildRecord]) -> list[BuildRecord]:
        from vmrunner.services import people

        return people.named(self.ledger, rows)

    def tests(self, row: BuildRecord) -> TestsDocument | None:
        from vmrunner.services import junit_reports
        from vmrunner.services.documents import tests_document

        found = junit_reports.of_build(row, self._parts.artifact_files)
        return None if found is None else tests_document(found)

    def artifacts(self, row: BuildRecord) -> Artifacts:
        from vmrunner.services.artifacts import FETCH_PATIENCE, Artifacts

        return Artifacts.of(row, self._parts.artifact_files, patience=FETCH_PATIENCE)

    def log(self, build: str) -> BuildLog:
        return self._parts.log(build)

    def sandbox(self, build: str) -> SandboxClient:
        from vmrunner.services.sandboxes import SandboxClient

        providers = self._parts.providers
        return SandboxClient(self.ledger, build, providers.channel_to, box=providers.box_of)

    def cancel(self, build: str, *, reason: Reason = Reason.USER, why: str = "") -> BuildRecord:
        from vmrunner.services.cancel import cancel

        return cancel(self.ledger, build, wake=self.wake, reason=reason, why=why)

    def remove(self, row: BuildRecord) -> None:
        from vmrunner.services.build_removal import remove

        remove(self.ledger, row, self._parts.paths.artifacts)

    def caches(self) -> list[StoredCache]:
        return self.ledger.caches.list()

    def remove_cache(self, name: str) -> str:
        from vmrunner.services.caches import remove

        return remove(self.ledger, name).id

    def ensure_ended(self, rows: Iterable[BuildRecord]) -> None:
        from vmrunner.runtime.background import served

        unserved = {
            row.spec.provider
            for row in rows
            if not row.finished and not served(self.ledger, [row.spec.provider])
        }
        if unserved:
            self.ensure_served(*unserved)

    def extend(self, row: BuildRecord, seconds: float) -> BuildRecord:
        now = self._parts.providers.time_at(row.spec.provider, ask=True)
        return self.ledger.builds.extend(row.id, seconds, now, by=process.user())

    # --- the house ---

    def time_of(self, row: Instance) -> float:
        return self._parts.providers.time_at(row.provider, row.scope)

    def fleet(self, *, gone: bool, limit: int) -> Fleet:
        from vmrunner.services import fleet

        return fleet.fleet(self.ledger, self._parts.providers, gone=gone, limit=limit)

    def destroy(self, row: Instance) -> DestroyedVm:
        from vmrunner.services.destroy import destroy

        return destroy(self.ledger, self._parts.providers, row)

    def ensure_ends_are_written(self) -> None:
        from vmrunner.runtime.background import served

        if not served(self.ledger) and self.ledger.builds.list(active=True, limit=1):
            self.ensure_served()

    def drain(self, *, off: bool) -> None:
        from vmrunner.services import draining

        draining.drain(self._parts.ledgers.open(make=True), off=off)
        self.wake()

    def reap(
        self, *, provider: str | None = None, dry_run: bool = False, orphans: bool = False
    ) -> Report:
        from vmrunner.services import reap

        parts = self._parts
        return reap.reap(
            parts.ledgers,
            parts.providers,
            parts.limits(),
            parts.paths,
            provider=provider,
            dry_run=dry_run,
            orphans=orphans,
        )

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: tuple[str, str] | None = None,
        older_than: float | None = None,
    ) -> list[Survivor]:
        from vmrunner.services import audit

        parts = self._parts
        return audit.audit(
            parts.ledgers,
            parts.providers,
            parts.limits().limits,
            provider=provider,
            tag=tag,
            older_than=older_than,
        )

    def costs(self, by: str, since: float) -> list[CostLine]:
        from vmrunner.services import costs

        return costs.report(self.ledger, self._parts.providers, by=by, since=since)

    def pools(self) -> list[PoolStatus]:
        from vmrunner.services import pools

        return pools.status(self.ledger, self._parts.providers)

    def pool(self, name: str) -> PoolStatus:
        from vmrunner.services import pools

        return pools.one(self.ledger, self._parts.providers, name)

    def resize_pool(self, name: str, size: int) -> None:
        from vmrunner.services import pools

        pools.resize(self.ledger, name, size)

    def drain_pool(self, name: str) -> None:
        from vmrunner.services import pools

        pools.drain(self.ledger, name)

    def close(self, host: ServingHost | None = None, unended: Iterable[str] = ()) -> None:
        """Let go of what was opened, with an engine of this process. For `unended` builds of ours
        that have not ended, and for what that engine drove beside, a background engine is started,
        unless one serves them that stays."""
        engine, builds = (host.own if host is not None else None), tuple(unended)
        try:
            if host is not None:
                host.close()
            if (engine or builds) and (providers := self._left(engine, builds)):
                self._parts.background.ensure(*providers)
        finally:
            self._parts.close()

    def _left(self, engine: str | None, builds: Iterable[str]) -> set[str]:
        """The providers of these builds, as far as they have not ended, and of what the engine
        drove that no other engine minds: who waits for a build finds it another engine."""
        from vmrunner.runtime.background import served

        ledger = self.ledger
        try:
            own = {build.spec.provider for build in _found(ledger, builds) if not build.finished}
            drove = {
                build.spec.provider
                for build in ledger.builds.driven()
                if engine is not None and build.owner == engine and not _awaited(build)
            }
            return own | {name for name in drove if not served(ledger, [name], here=True)}
        except LedgerError as error:
            log.warning("%s", error)
            return set(self._parts.settings().providers)


def _found(ledger: Ledger, builds: Iterable[str]) -> Iterator[BuildRecord]:
    """Return the builds that the ledger still has, and can tell."""
    for build in builds:
        with contextlib.suppress(NotFound, Unreadable):
            yield ledger.builds.get(build)


def _awaited(build: BuildRecord) -> bool:
    """True if it belongs to a process that may live."""
    return build.submitter is not None and process.alive(build.submitter) is not False
