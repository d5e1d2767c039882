"""Removal of what outlives its build, after a time: logs and artifacts for a while, packed sources
not at all. What a crash left behind goes with them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.ledger import Ledger
from vmrunner.store.object_gc import ObjectGc

log = logging.getLogger("vmrunner.serve")

DAY: Final = 86_400.0
#: So long it is remembered who did what that concerned no build.
ACTIONS: Final = 365 * DAY


@dataclass(frozen=True, slots=True)
class Removal:
    """The part of one kind that went, or would."""

    what: str
    count: int
    size: int  # bytes


def retain(
    ledger: Ledger,
    garbage: ObjectGc,
    *,
    sources: Path,
    artifacts: Path,
    keep: float,
    keep_caches: float,
    now: float,
    dry_run: bool = False,
    orphans: bool = False,
) -> list[Removal]:
    """Remove logs and artifacts of builds that ended `keep` seconds ago or earlier, or as long ago
    as they said themselves; caches that no build used for `keep_caches` seconds; what nothing in
    the store needs; and files of this host that no build will ever read. `orphans`: also objects
    that gc's cap holds back."""
    logs, log_bytes = ledger.removals.count_old(now, keep)
    caches, cache_bytes = ledger.caches.forget_unused(now - keep_caches, dry_run=dry_run)
    if not dry_run:
        ledger.removals.remove_old(now, keep)
        ledger.tokens.forget(now - DAY)
        ledger.actions.forget(now - ACTIONS)
    needed = {f"{build.id}.tar" for build in ledger.builds.list(active=True)}
    found = {
        # A young file may belong to a submit or a transfer that is under way.
        "sources": [p for p in _ours(sources) if p.name not in needed and _older(p, now - DAY)],
        "artifacts": [path for path in _ours(artifacts) if _over(ledger, path, now, keep)],
    }
    removals = [
        Removal("logs", logs, log_bytes),
        Removal("caches", caches, cache_bytes),
    ]
    removals += [
        Removal(what, len(paths), sum(map(size_of, paths))) for what, paths in found.items()
    ]
    if not dry_run:
        for path in (path for paths in found.values() for path in paths):
            remove(path)
    collected = garbage.run(dry_run=dry_run, orphans=orphans)
    removals.append(Removal("objects", collected.count, collected.size))
    if not dry_run:
        for one in removals:
            log.info("retention: %d %s, %d bytes", one.count, one.what, one.size)
    return removals


def size_of(path: Path) -> int:
    """Return how many bytes it holds, as far as that can be seen."""
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
    except FileNotFoundError:  # somebody else removed it
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


def remove(path: Path) -> None:
    """Remove a file or a directory, and say so where that cannot be done."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("retention: %s cannot be removed: %s", path, error)
