"""Uploads of what lies on this host or in the ledger and belongs into the store.

Any process may run one at any time, and several at once: what two upload, one of them concludes. A
crash leaves all where it was, and a row by which gc finds what was written.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import LedgerError, NotFound, StoreError, VmrunnerError
from vmrunner.lib import private_dirs
from vmrunner.model import BuildRecord, Chunk, ObjectKind
from vmrunner.store import ObjectStore, digest_of
from vmrunner.transfers.log_object import write_log
from vmrunner.transfers.put import put
from vmrunner.transfers.source_transfer import SourceTransfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner")

CLAIM: Final = 600.0  # seconds for which a log is one uploader's
RETRY: Final = 30.0  # seconds until the next try with a store that was out of reach
_AT_ONCE: Final = 64


class Uploader:
    """One pass after the other over all that is to be uploaded from here."""

    def __init__(
        self,
        ledger: Ledger,
        store: Callable[[], ObjectStore],
        *,
        sources: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._sources = sources
        self._transfer = SourceTransfer(ledger, store, sources, clock)
        self._clock = clock
        self._told = False

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Upload what can be uploaded now, until there is nothing more or `until` says so. A store
        that is out of reach is left for the next time."""
        try:
            self._logs(until)
            self._spools(until)
        except StoreError as error:
            if not self._told:
                log.warning("what builds left is uploaded later: %s", error)
            self._told = True
        else:
            self._told = False

    def _each(self, build: str, work: Callable[[BuildRecord], None]) -> None:
        """Do it for one build. What is wrong with that one keeps no other."""
        try:
            work(self._ledger.builds.get(build))
        except NotFound:
            return  # another ledger's, or a submit that is under way
        except (StoreError, LedgerError):
            raise
        except (VmrunnerError, OSError) as error:
            log.warning("upload of what %s left: %s", build, error)

    # --- logs ---

    def _logs(self, until: Callable[[], bool]) -> None:
        objects = self._ledger.objects
        while due := objects.logs_due(self._clock(), _AT_ONCE):
            for build in due:
                if until():
                    return
                now = self._clock()
                if not objects.put_off_log(build, now=now, due=now + CLAIM):
                    continue
                try:
                    self._each(build, self._log)
                except StoreError:
                    objects.put_off_log(build, now=now + CLAIM, due=self._clock() + RETRY)
                    raise

    def _log(self, build: BuildRecord) -> None:
        """Upload the log of a build that ended: from then on nobody writes to it."""
        chunks = self._chunks(build.id)
        with tempfile.NamedTemporaryFile(
            dir=private_dirs.make(self._sources), prefix="upload-"
        ) as file:
            write_log(file, chunks)
            file.flush()
            self._put(build, ObjectKind.LOG, Path(file.name))

    def _chunks(self, build: str) -> Iterator[Chunk]:
        after = 0
        while found := self._ledger.logs.read(build, after_seq=after, limit=100):
            yield from found
            after = found[-1].seq

    def _put(self, build: BuildRecord, kind: ObjectKind, file: Path) -> None:
        one = put(
            self._ledger, self._store(), kind, file, digest=digest_of(file), now=self._clock(),
            tenant=build.tenant, build=build.id, attempt=build.attempt, epoch=build.epoch,
        )  # fmt: skip
        self._ledger.objects.conclude(one, epoch=build.epoch)

    # --- sources of a vmrunner that had no store ---

    def _spools(self, until: Callable[[], bool]) -> None:
        for spool in sorted(self._sources.glob("b-*.tar")):
            if until():
                return
            self._each(spool.stem, partial(self._spool, spool))

    def _spool(self, spool: Path, build: BuildRecord) -> None:
        if build.finished or build.source_object is not None:
            spool.unlink(missing_ok=True)
        else:
            self._transfer.adopt(build, spool)
