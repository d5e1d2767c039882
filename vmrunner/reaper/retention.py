"""Removal of what outlives its build, after a time: logs and artifacts for a while, packed sources
not at all. What a crash left behind goes with them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from vmrunner.core import budgets
from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.old_rows import LONGEST_NIGHT
from vmrunner.model import BudgetPeriod
from vmrunner.reaper.once import last_sweeps
from vmrunner.store.object_gc import ObjectGc

log = logging.getLogger("vmrunner.serve")

DAY: Final = 86_400.0
#: So long it is remembered who did what that concerned no build.
ACTIONS: Final = 365 * DAY
#: So long what was seen in a scope is remembered after its last sweep: of a host that is gone, or a
#: region that nobody uses any more.
UNSWEPT: Final = 30 * DAY


@dataclass(frozen=True, slots=True)
class Removal:
    """The part of one kind that went, or would. `failed`: how many stay that cannot be read or
    removed; the log says which and why."""

    what: str
    count: int
    size: int  # bytes
    failed: int = 0


def retain(
    ledger: Ledger,
    garbage: ObjectGc,
    *,
    sources: Path,
    artifacts: Path,
    keep: float,
    keep_caches: float,
    keep_rows: float,
    now: float,
    dry_run: bool = False,
    orphans: bool = False,
) -> list[Removal]:
    """Remove logs and artifacts of builds that ended `keep` seconds ago or earlier, or as long ago
    as they said themselves; caches that no build used for `keep_caches` seconds; what nothing in
    the store needs; files of this host that no build will ever read; and all rows of builds that
    ended `keep_rows` seconds ago and left nothing else. `orphans`: also objects that gc's cap holds
    back. What cannot be done keeps nothing else from being done."""
    night = _Night(ledger, now, keep, dry_run=dry_run)
    steps: dict[str, Callable[[], Removal | None]] = {
        "logs": night.logs,
        "caches": partial(night.caches, keep_caches),
        "tokens": night.accounts,
        "sources": partial(night.sources, sources),
        "artifacts": partial(night.artifacts, artifacts),
        "objects": partial(night.objects, garbage, orphans=orphans),
        "builds": partial(night.builds, keep_rows),
    }
    removals = []
    for name, step in steps.items():
        try:
            done = step()
        except (VmrunnerError, OSError) as error:
            log.warning("retention: %s: %s", name, error)
            done = Removal(name, 0, 0, 1)
        if done is not None:
            removals.append(done)
    if not dry_run:
        for removal in removals:
            stay = f"; {removal.failed} stay that should go" if removal.failed else ""
            log.info(
                "retention: %d %s, %d bytes%s", removal.count, removal.what, removal.size, stay
            )
    return removals


class _Night:
    """The steps of one retention."""

    def __init__(self, ledger: Ledger, now: float, keep: float, *, dry_run: bool) -> None:
        self._ledger, self._now, self._keep, self._dry_run = ledger, now, keep, dry_run

    def logs(self) -> Removal:
        removals, now, keep = self._ledger.removals, self._now, self._keep
        count, size = removals.count_old(now, keep)
        if self._dry_run:
            return Removal("logs", count, size)
        removed = removals.remove_old(now, keep)
        return Removal("logs", removed.count, size, removed.failed)

    def caches(self, keep: float) -> Removal:
        unused = self._ledger.caches.forget_unused(self._now - keep, dry_run=self._dry_run)
        return Removal("caches", *unused)

    def accounts(self) -> None:
        if not self._dry_run:
            self._ledger.tokens.forget(self._now - DAY)
            self._ledger.actions.forget(self._now - ACTIONS)
            swept = last_sweeps(self._ledger.engines.heartbeats())
            self._ledger.sightings.forget(s for s, at in swept.items() if at < self._now - UNSWEPT)

    def sources(self, place: Path) -> Removal:
        needed = {f"{build.id}.tar" for build in self._ledger.builds.list(active=True)}
        # A young file may belong to a submit or a transfer that is under way.
        old = (p for p in _ours(place) if p.name not in needed and _older(p, self._now - DAY))
        return _removed("sources", list(old), dry_run=self._dry_run)

    def artifacts(self, place: Path) -> Removal:
        old = (path for path in _ours(place) if _over(self._ledger, path, self._now, self._keep))
        return _removed("artifacts", list(old), dry_run=self._dry_run)

    def objects(self, garbage: ObjectGc, *, orphans: bool) -> Removal:
        collected = garbage.run(dry_run=self._dry_run, orphans=orphans)
        return Removal("objects", collected.count, collected.size, collected.failed)

    def builds(self, keep: float) -> Removal:
        # A budget may be declared that counts the present month.
        month = budgets.period(BudgetPeriod.MONTH, self._now).start
        removed = self._ledger.old_rows.remove(
            min(self._now - keep, month), self._now, dry_run=self._dry_run
        )
        if not self._dry_run:
            self._ledger.settled_costs.add(self._now, longest=LONGEST_NIGHT)
        return Removal("builds", removed.count, 0, removed.failed)


def _removed(what: str, paths: Sequence[Path], *, dry_run: bool) -> Removal:
    """Remove these, as far as that can be done."""
    sizes = {path: size_of(path) for path in paths}
    gone = [path for path in paths if dry_run or remove(path)]
    return Removal(what, len(gone), sum(sizes[path] for path in gone), len(paths) - len(gone))


def size_of(path: Path) -> int:
    """The bytes that it holds, as far as they can be seen."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(size_of, path.iterdir()))
        return path.lstat().st_size
    except OSError:
        return 0


def _ours(directory: Path) -> Iterator[Path]:
    """Yield what a build, a transfer that broke off, or the cache of sources left."""
    for glob in ("b-*", "upload-*", f"{'[0-9a-f]' * 64}*"):
        yield from directory.glob(glob)


def _older(path: Path, then: float) -> bool:
    try:
        return path.lstat().st_mtime < then
    except FileNotFoundError:  # another process removed it
        return False


def _over(ledger: Ledger, path: Path, now: float, keep: float) -> bool:
    """True if the time of what the build left is over. One that the ledger does not know, an
    earlier ledger's, goes by the directory's age."""
    try:
        build = ledger.builds.get(path.name.partition(".")[0])
    except NotFound:
        return _older(path, now - keep)
    except VmrunnerError as error:
        log.warning("retention: %s", error)
        return False
    if build.removed_at is not None:
        return True
    kept = keep if build.spec.keep_logs is None else build.spec.keep_logs
    return build.finished_at is not None and build.finished_at < now - kept


def remove(path: Path) -> bool:
    """Remove a file or a directory. False, and a line in the log, where that cannot be done."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("retention: %s cannot be removed: %s", path, error)
        return False
    return True
