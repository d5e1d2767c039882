"""Uploads of what lies on this host or in the ledger and belongs into the store.

Any process may run one at any time, and several at once: what two upload, one of them concludes. A
crash leaves all where it was, and a row by which gc finds what was written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import LedgerError, NotFound, StoreError, VmrunnerError
from vmrunner.lib import private_dirs
from vmrunner.model import BuildRecord, Chunk, ObjectKind
from vmrunner.store import ObjectStore, digest_of
from vmrunner.store.build_artifacts import LocalArtifacts, write_artifacts
from vmrunner.store.cache_transfer import SUFFIX, CacheTransfer
from vmrunner.store.log_object import write_log
from vmrunner.store.put import put
from vmrunner.store.source_transfer import SourceTransfer

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner")

CLAIM: Final = 600.0  # seconds for which a log is one uploader's
STORE_RETRY: Final = 30.0  # seconds until the next try with a store that was out of reach
LOCAL_COPY: Final = 3600.0  # seconds that artifacts are here too, for who reads them at the end
FAILURES: Final = 3  # after so many the store is out of reach: the rest of a pass is left out
#: Seconds until what the store refused is tried again: doubled each time, since each try is read
#: whole and leaves a row for gc.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
UPLOADS: Final = ".uploads"  # the lock of who uploads from this host
_AT_ONCE: Final = 64  # logs that are taken
_CHUNKS: Final = 100  # of a log, that are read at once


class Uploader:
    """One pass after the other over all that is to be uploaded from here."""

    def __init__(
        self,
        ledger: Ledger,
        store: Callable[[], ObjectStore],
        *,
        sources: Path,
        artifacts: Path,
        caches: CacheTransfer | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._sources = sources
        self._artifacts_place = artifacts
        self._transfer = SourceTransfer(ledger, store, sources, clock)
        self._caches = caches
        self._clock = clock
        self._monotonic = monotonic
        self._warned = False
        #: When it is tried again, monotonic; the next pause.
        self._later: dict[Path, tuple[float, float]] = {}

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Upload what can be uploaded now, until there is nothing more or `until` says so. A store
        that is out of reach is left for the next time."""
        self._later = {path: when for path, when in self._later.items() if path.exists()}
        failed: list[StoreError] = []
        for part in (self._logs, self._spools, self._directories, self._brought_caches):
            try:
                part(until)
            except StoreError as error:
                failed.append(error)
        if failed and not self._warned:
            log.warning("what builds left is uploaded later: %s", failed[0])
        self._warned = bool(failed or self._later)

    def _all(
        self,
        found: list[Path],
        work: Callable[[Path, BuildRecord], None],
        until: Callable[[], bool],
    ) -> None:
        """Do it with what lies here of each build. What can never be uploaded keeps nothing else:
        it waits longer and longer."""
        failed: list[StoreError] = []
        for path in found:
            if until() or len(failed) == FAILURES:
                break
            due, pause = self._later.get(path, (float("-inf"), FIRST_PAUSE))
            if self._monotonic() < due:
                continue
            try:
                self._each(path.name.partition(".")[0], partial(work, path))
                self._later.pop(path, None)
            except StoreError as error:
                self._later[path] = self._monotonic() + pause, min(2 * pause, LONGEST_PAUSE)
                failed.append(error)
        if failed:
            raise failed[0]

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
            now = self._clock()
            taken = objects.put_off_logs(due, now=now, due=now + CLAIM)
            for number, build in enumerate(taken):
                if until():
                    objects.put_off_logs(taken[number:], now=now + CLAIM, due=self._clock())
                    return
                try:
                    self._each(build, self._log)
                except StoreError:
                    again = self._clock() + STORE_RETRY
                    objects.put_off_logs(taken[number:], now=now + CLAIM, due=again)
                    raise

    def _log(self, build: BuildRecord) -> None:
        """Upload the log of a build that ended, which has no writer any more, and then drop it
        here."""
        if build.log_object is None:
            with self._file() as file:
                write_log(file, self._chunks(build.id))
                file.flush()
                self._put(build, ObjectKind.LOG, Path(file.name))
        self._ledger.removals.drop_stored(build.id)

    def _chunks(self, build: str) -> Iterator[Chunk]:
        after, more = 0, True
        while more:
            found = self._ledger.logs.read(build, after_seq=after, limit=_CHUNKS)
            yield from found
            more = len(found) == _CHUNKS
            after = found[-1].seq if found else after

    def _put(self, build: BuildRecord, kind: ObjectKind, file: Path) -> None:
        item = put(
            self._ledger, self._store(), kind, file, digest=digest_of(file), now=self._clock(),
            tenant=build.tenant, build=build.id, attempt=build.attempt, epoch=build.epoch,
        )  # fmt: skip
        self._ledger.objects.conclude(item, epoch=build.epoch)

    # --- artifacts of this host ---

    def _directories(self, until: Callable[[], bool]) -> None:
        """Upload what lies here, unless another process of this host is about it."""
        if not any(self._artifacts_place.glob("b-*")):
            return
        with _alone(self._artifacts_place / UPLOADS) as alone:
            if alone:
                self._all(sorted(self._artifacts_place.glob("b-*")), self._directory, until)

    def _directory(self, directory: Path, build: BuildRecord) -> None:
        """Upload what its last owner brought. That stays here as a copy for a while; what an owner
        before had brought goes."""
        if not build.finished:
            return
        _, mark, epoch = directory.name.partition(".")
        brought = (epoch == str(build.collected)) if mark else build.collected is None
        if brought and build.artifacts_object is None and build.removed_at is None:
            with self._file() as file:
                write_artifacts(file, LocalArtifacts(directory))
                file.flush()
                self._put(build, ObjectKind.ARTIFACTS, Path(file.name))
        elif self._clock() - directory.lstat().st_mtime > LOCAL_COPY:
            shutil.rmtree(directory, ignore_errors=True)

    # --- caches that sessions of this host brought ---

    def _brought_caches(self, until: Callable[[], bool]) -> None:
        """The same of caches, once their builds have ended."""
        if self._caches is None or not any(self._sources.glob(f"b-*{SUFFIX}")):
            return
        with _alone(private_dirs.make(self._artifacts_place) / UPLOADS) as alone:
            if alone:
                self._all(sorted(self._sources.glob(f"b-*{SUFFIX}")), self._cache, until)

    def _cache(self, file: Path, build: BuildRecord) -> None:
        assert self._caches is not None
        if build.finished:
            self._caches.keep(file, build)

    def _file(self) -> Any:
        """A file that goes when it is closed."""
        return tempfile.NamedTemporaryFile(dir=private_dirs.make(self._sources), prefix="upload-")

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


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Hold this lock meanwhile. False: another process of this host has it."""
    with os.fdopen(os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
