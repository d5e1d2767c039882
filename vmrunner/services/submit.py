"""Submission of a build to the queue: check the request, ask its provider, pack the source, queue
it.

Four steps, each of which needs what the one before gave: the submitter may print something between
two of them, and nothing is made before all that can be checked was checked.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.core import trace_context
from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.lib import ids, private_dirs, process, wakeup
from vmrunner.model import LOCAL_TENANT
from vmrunner.services import cancel, ceilings, preflight, requests, sources

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.images import Progress
    from vmrunner.lib.archive.files import ArchiveTotal
    from vmrunner.model import BuildRecord, Process
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.runtime.service_parts import ServiceParts
    from vmrunner.services.preflight import ImageToBuild
    from vmrunner.services.requests import CheckedRequest
    from vmrunner.store.source_transfer import SourceTransfer

log = logging.getLogger("vmrunner")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmittedBuild:
    """A build that nothing is known against. `image` must be made before it can start."""

    checked: CheckedRequest
    image: ImageToBuild | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBuild:
    """A build that only has to be queued. Its source lies in the store, by that digest, and until
    it is queued in the spool too. `id`: "" where a server gives it one."""

    checked: CheckedRequest
    id: str = ""
    spool: Path | None = None
    digest: str | None = None
    total: ArchiveTotal | None = None  # of a source that was packed here


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """Parts that submitting needs."""

    settings: Settings
    paths: Paths
    ledgers: LedgerOpener
    providers: ProviderSet
    transfer: Callable[[], SourceTransfer]
    traceparent: str = ""  # of this process

    @classmethod
    def of(cls, parts: ServiceParts, *, traceparent: str = "") -> Submission:
        """Return the submission that these parts make."""
        return cls(
            settings=parts.settings(),
            paths=parts.paths,
            ledgers=parts.ledgers,
            providers=parts.providers,
            transfer=parts.sources,
            traceparent=traceparent,
        )

    def check(self, request: BuildRequest) -> CheckedRequest:
        """All that needs neither ledger nor provider. Raises ConfigError."""
        return requests.check(request, self.settings)

    def admit(
        self, checked: CheckedRequest, *, warn: Callable[[str], object], remote: bool = False
    ) -> AdmittedBuild:
        """Ask ledger and provider. Raises ConfigError, NotAllowed, or the provider's own refusal.
        `remote`: for a caller over HTTP."""
        for text in checked.warnings:
            warn(text)
        ledger = self.ledgers.open(make=True)  # a build is wanted
        with checked.placed():
            ceilings.check_image(checked.spec, self.settings, ledger, remote=remote)
            passed = preflight.check(
                checked.spec,
                self.settings,
                paths=self.paths,
                ledger=ledger,
                providers=self.providers,
            )
        for text in passed.warnings:
            warn(text)
        return AdmittedBuild(checked=checked, image=passed.image)

    def pack(self, admitted: AdmittedBuild, *, on_image: Callable[[Progress], None]) -> PackedBuild:
        """All that takes time: the source into the spool and the store and, when nothing can be
        wrong with the build any more, its VM's image. When it breaks off it leaves no source."""
        build, checked, image = ids.build_id(), admitted.checked, admitted.image
        spool = self.paths.sources / f"{build}.tar"
        digest = total = None
        try:
            if checked.source is not None:
                private_dirs.make(spool.parent)
                most = self.settings.limits.source_bytes
                with checked.placed():
                    total = sources.spool(checked.source, spool, most=most)
            if image is not None and self.ledgers.open().builds.same(checked.spec) is None:
                log.info("%s: it is made", image.why)
                image.make(on_image)
            if checked.source is not None:  # last: what breaks off before has stored nothing
                digest = self.transfer().store(spool)
        except BaseException:
            spool.unlink(missing_ok=True)
            raise
        return PackedBuild(id=build, checked=checked, spool=spool, digest=digest, total=total)

    def place(self, admitted: AdmittedBuild, *, digest: str | None) -> PackedBuild:
        """The same for a source that its tenant stored before."""
        return PackedBuild(id=ids.build_id(), checked=admitted.checked, digest=digest)

    def queue(
        self,
        packed: PackedBuild,
        *,
        submitter: Process | None = None,
        tenant: str = LOCAL_TENANT,
        actor: str = "",
        lease_until: float | None = None,
        most: int | None = None,
        traceparent: str = "",
    ) -> tuple[BuildRecord, bool]:
        """Queue it, and let the engines look at once. Return the build, and whether it is a new
        one: not one that had its idempotency key already.
        With a `submitter` it belongs to that process, and ends with it; with `lease_until` to
        the process that renews that. Raises QuotaUsedUp where the actor has `most` builds already,
        NotFound where its tenant has no source of that digest. `traceparent`: the caller's span;
        what is none is left out."""
        parent = trace_context.parse(traceparent or self.traceparent)

        def submit() -> tuple[BuildRecord, bool]:
            return self.ledgers.open().builds.submit(
                packed.checked.spec,
                id=packed.id,
                now=time.time(),
                submitter=submitter,
                secrets=packed.checked.secrets,
                tenant=tenant,
                actor=actor or process.user(),
                lease_until=lease_until,
                most=most,
                source=packed.digest,
                traceparent=str(parent or ""),
            )

        with self._withdrawn_on_interrupt(packed.id):
            try:
                queued = submit()
            except NotFound:
                if packed.spool is None or packed.digest is None:
                    raise
                self.transfer().store(packed.spool)  # the time of the stored one was over meanwhile
                queued = submit()
            finally:
                if packed.spool is not None:
                    packed.spool.unlink(missing_ok=True)
            wakeup.poke(self.paths.wake)
            return queued

    @contextlib.contextmanager
    def _withdrawn_on_interrupt(self, build: str) -> Iterator[None]:
        """Cancel a build whose commit a signal broke into: it may be queued, and its submitter
        is not told its id."""
        try:
            yield
        except VmrunnerError:
            raise
        except BaseException:
            with contextlib.suppress(VmrunnerError):  # the signal is what is to be told
                cancel.cancel(self.ledgers.open(), build, why="interrupted")
            raise
