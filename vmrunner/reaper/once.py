"""One pass over ledger and clouds, for the command line and the API; and what is told of a pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.reaper.reaper import Reaper
from vmrunner.reaper.report import Report

log = logging.getLogger("vmrunner.serve")

SETTLE: Final = 10.0  # so long `reap` waits to see dead what it killed
#: What the reaper does again and again, by the name of its heartbeat.
PASSED: Final = "pass"
SWEPT: Final = "sweep"


def record_pass(engine: Engine, *, sweep: bool) -> None:
    """Note that a pass was finished, for those who watch the reaper."""
    engines, now = engine.context.ledger.engines, time.time()
    try:
        engines.record_heartbeat(PASSED, engine.id, now)
        if sweep:
            engines.record_heartbeat(SWEPT, engine.id, now)
    except LedgerError as error:
        log.warning("%s", error)


def reap(
    engine: Engine,
    *,
    dry_run: bool = False,
    provider: str | None = None,
    orphans: bool = False,
    settle: float = SETTLE,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """One pass over the ledger and the cloud, for the command line and the API. `orphans`: also
    those that the cap holds back.

    `engine` brings ledger, providers and limits; it need not run. Waits at most `settle` seconds
    until what it killed is seen dead, so that the rows of a local host are closed when it ends."""
    membership = Membership(one_host=engine.context.ledger.url.startswith("sqlite"))
    reaping = Reaper(engine.context, membership, lambda: engine.watching)
    report = reaping.run(dry_run=dry_run, only=provider, orphans=orphans)
    if dry_run:
        return report
    if provider is None and not report.ongoing:
        record_pass(engine, sweep=True)
    try:
        reaping.end_abandoned()
        waited = 0.0
        while waited < settle and reaping.unburied(only=provider):
            sleep(0.25)
            waited += 0.25
    except LedgerError as error:  # what could be done without it is done, and must be told
        report += Report(unread=(str(error),))
    return report
