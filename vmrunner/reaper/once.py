"""One pass over ledger and clouds, for the command line and the API; and what is told of a pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vmrunner.engine.context import EngineLimits, EnginePaths, WorkContext
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.lib import ids
from vmrunner.lib.threads import DaemonThreadPool
from vmrunner.reaper.reaper import Reaper
from vmrunner.reaper.report import Report

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Scope
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner.serve")

SETTLE: Final = 10.0  # so long `reap` waits to see dead what it killed
#: What the reaper does again and again, by the name of its heartbeat.
PASSED: Final = "pass"
SWEPT: Final = "sweep"


def swept_in(scope: Scope | str) -> str:
    """Return the name of the heartbeat of sweeps of one scope."""
    return f"{SWEPT} {scope}"


def last_sweeps(beats: Mapping[str, float]) -> dict[str, float]:
    """Return the time of the last sweep of each scope, from the heartbeats by name."""
    prefix = swept_in("")
    return {n.removeprefix(prefix): at for n, at in beats.items() if n.startswith(prefix)}


def record_pass(ledger: Ledger, reaper: str, report: Report, *, sweep: bool) -> None:
    """Note that a pass was finished, for those who watch the reaper. `reaper`: whose."""
    now = time.time()
    done = [PASSED, SWEPT, *map(swept_in, report.swept)] if sweep else [PASSED]
    try:
        for name in done:
            ledger.engines.record_heartbeat(name, reaper, now)
    except LedgerError as error:
        log.warning("%s", error)


@contextmanager
def reaper(
    ledger: Ledger, providers: Mapping[str, Provider], limits: EngineLimits, paths: EnginePaths
) -> Iterator[Reaper]:
    """A reaper without an engine: it has threads of its own, and watches since now."""
    pools: dict[str, DaemonThreadPool] = {}

    def pool(name: str) -> DaemonThreadPool:
        return pools.setdefault(name, DaemonThreadPool(f"reap-{name}", 1))

    context = WorkContext(
        ledger=ledger, providers=providers, limits=limits, paths=paths, reap_threads=pool
    )
    membership = Membership(one_host=ledger.url.startswith("sqlite"))
    began = time.monotonic()
    try:
        yield Reaper(context, membership, lambda: time.monotonic() - began)
    finally:
        for each in pools.values():
            each.close()


def reap(
    ledger: Ledger,
    providers: Mapping[str, Provider],
    limits: EngineLimits,
    paths: EnginePaths,
    *,
    dry_run: bool = False,
    provider: str | None = None,
    orphans: bool = False,
) -> Report:
    """One pass over the ledger and the cloud, for the command line and the API. `orphans`: also
    those that the cap holds back. Waits at most `SETTLE` seconds until what it killed is seen
    dead, so that the rows of a local host are closed when it ends."""
    with reaper(ledger, providers, limits, paths) as opened:
        report = opened.run(
            dry_run=dry_run, only=None if provider is None else {provider}, orphans=orphans
        )
        if dry_run:
            return report
        if provider is None and not report.ongoing:
            record_pass(ledger, ids.engine_id(), report, sweep=True)
        try:
            opened.end_abandoned()
            opened.close_dying(SETTLE, only=provider)
        except LedgerError as error:  # what could be done without it is done, and must be told
            report += Report(unread=(str(error),))
        return report
