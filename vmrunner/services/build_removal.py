"""Removal of the log and the artifacts of a build that ended, on request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.reaper import retention

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import BuildRecord


def remove(ledger: Ledger, build: BuildRecord, artifacts: Path) -> None:
    """Remove them. They cannot be read from then on; their bytes leave the store with gc, a day
    later. The build's row and its events stay. Raises Conflict when it has not ended."""
    ledger.removals.remove(build.id, time.time())
    for directory in (artifacts / build.id, *artifacts.glob(f"{build.id}.*")):
        retention.remove(directory)
