"""Requests that a build end and its VM die; the engine that drives it does both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.lib import process
from vmrunner.model import Reason

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import BuildRecord
    from vmrunner.services.client import RemoteLedger


def cancel(
    ledger: Ledger | RemoteLedger,
    build: str,
    *,
    wake: Callable[[], object] = lambda: None,
    reason: Reason = Reason.USER,
    why: str = "",
    by: str = "",
) -> BuildRecord:
    """Note the request, and return the build as it is then; one that has finished stays as it is.
    `wake` lets the engines look at once; `why` stands beside the actor, for people: `by`, or
    this process's user."""
    actor = by or process.user()
    by = f"{actor}: {why}" if why else actor
    row = ledger.builds.request_cancel(build, reason, time.time(), by=by)
    wake()
    return row
