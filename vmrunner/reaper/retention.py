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

log = logging.getLogger("vmrunner.serve")

DAY: Final = 86_400.0
_BUILD: Final = "b-"


@dataclass(frozen=True, slots=True)
class Removal:
    """The part of one kind that went, or would."""

    what: str
    count: int
    size: int  # bytes


def retain(
    ledger: Ledger,
    *,
    sources: Path,
    uploads: Path,
    artifacts: Path,
    keep: float,
    now: float,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove logs and artifacts of builds that ended `keep` seconds ago or earlier, and packed
    sources that no build will ever read."""
    chunks, size = ledger.logs.older(now - keep)
    needed = {f"{build.id}.tar" for build in ledger.builds.list(active=True)}
    found = {
        # A young file may belong to a submit that has not written its row yet.
        "sources": [p for p in _ours(sources) if p.name not in needed and _older(p, now - DAY)],
        "uploads": [path for path in uploads.glob("*/*.tar") if _older(path, now - DAY)]
        + [path for path in uploads.glob("*/.part-*") if _older(path, now - DAY)],
        "artifacts": [
            path
            for path in _ours(artifacts)
            if _older(path, now - keep) and _over(ledger, path.name, now - keep)
        ],
    }
    removals = [Removal("log chunks", chunks, size)]
    removals += [
        Removal(what, len(paths), sum(map(size_of, paths))) for what, paths in found.items()
    ]
    if not dry_run:
        ledger.logs.delete_before(now - keep)
        for path in (path for paths in found.values() for path in paths):
            _remove(path)
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
    yield from directory.glob(f"{_BUILD}*")


def _older(path: Path, then: float) -> bool:
    try:
        return path.lstat().st_mtime < then
    except FileNotFoundError:  # somebody else removed it
        return False


def _over(ledger: Ledger, build: str, then: float) -> bool:
    """True if the build ended before then. One that the ledger does not know, an earlier ledger's,
    did."""
    try:
        finished = ledger.builds.get(build).finished_at
    except NotFound:
        return True
    except VmrunnerError as error:
        log.warning("retention: %s", error)
        return False
    return finished is not None and finished < then


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("retention: %s cannot be removed: %s", path, error)
