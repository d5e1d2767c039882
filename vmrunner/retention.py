"""What outlives its build, and for how long: logs and artifacts for a time, packed sources not at
all. What a crash left behind goes with them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner.serve")

DAY: Final = 86_400.0
_BUILD: Final = "b-"


def retain(ledger: Ledger, *, sources: Path, artifacts: Path, keep: float, now: float) -> None:
    """Remove logs and artifacts of builds that ended `keep` seconds ago or earlier, and packed
    sources that no build will ever read."""
    gone = ledger.logs.delete_before(now - keep)
    log.info("retention: %d log chunks", gone)
    needed = {f"{build.id}.tar" for build in ledger.builds.list(active=True)}
    for path in _ours(sources):
        # A young file may belong to a submit that has not written its row yet.
        if path.name not in needed and _older(path, now - DAY):
            _remove(path)
    for path in _ours(artifacts):
        if _older(path, now - keep) and _over(ledger, path.name, now - keep):
            _remove(path)


def _ours(directory: Path) -> Iterator[Path]:
    yield from directory.glob(f"{_BUILD}*")


def _older(path: Path, then: float) -> bool:
    try:
        return path.lstat().st_mtime < then
    except FileNotFoundError:  # somebody else removed it
        return False


def _over(ledger: Ledger, build: str, then: float) -> bool:
    """Did it end before then? One that the ledger does not know, an earlier ledger's, did."""
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
