"""One pass of the reaper, on request. What `serve` does all the time is in `daemon`."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from vmrunner.errors import VmrunnerError
from vmrunner.lib import process
from vmrunner.reaper import expired, once
from vmrunner.reaper.pass_log import log_lines
from vmrunner.reaper.report import Report
from vmrunner.services import prices

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits, EnginePaths
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet

log = logging.getLogger("vmrunner")

#: Seconds that a reap by hand waits for prices at most, since it began.
PRICES_WAIT: Final = 15.0


def reap(
    ledgers: LedgerOpener,
    providers: ProviderSet,
    limits: EngineLimits,
    paths: EnginePaths,
    *,
    provider: str | None = None,
    dry_run: bool = False,
    orphans: bool = False,
    by: str | None = "",
) -> Report:
    """One pass over the ledger and the cloud; waits a little to see dead what it killed. Without a
    ledger, over what is past its deadline by its own tags. `orphans`: also those that the cap
    holds back. Who never serves has prices by it: they are asked for meanwhile, where they are
    old. `by`: for whom, else this process's user; None: no request, and no action is noted."""
    only = providers.named(provider)
    try:
        ledger = ledgers.open()
    except VmrunnerError as error:
        lost = Report(unread=(f"the ledger is out of reach: {error}",))
        dead = end_expired(
            ledgers, providers, limits, only=only, dry_run=dry_run, seconds=once.SETTLE, by=None
        )
        return dead + lost
    opened = providers.all()
    with nullcontext() if dry_run else prices.refreshed_beside(ledger, opened, PRICES_WAIT):
        report = once.reap(
            ledger, opened, limits, paths, dry_run=dry_run, provider=only, orphans=orphans
        )
    if not dry_run:
        _note(ledger, by, "reap", only or "all", "orphans" if orphans else "")
        if by is not None:  # `serve` says what its own passes did
            log_lines(report, logging.INFO)
    _, broken = providers.opened()
    return report + Report(unread=tuple(str(e) for n, e in broken.items() if only in (None, n)))


def end_expired(
    ledgers: LedgerOpener,
    providers: ProviderSet,
    limits: EngineLimits,
    *,
    seconds: float,
    only: str | None = None,
    dry_run: bool = False,
    by: str | None = "",
) -> Report:
    """Delete all of this installation that is past its deadline by its own tags; no ledger is
    needed. Waits at most `seconds`, for each provider, until its VMs are seen dead. `by`: as
    `reap` has it."""
    try:
        ledger = ledgers.open()
    except VmrunnerError:
        ledger = None
    opened, broken = providers.opened()
    report = expired.delete_expired(
        ledger,
        opened,
        limits.limits,
        ledgers.installation,
        broken=broken,
        only=only,
        dry_run=dry_run,
        seconds=seconds,
    )
    if ledger is not None and not dry_run:
        _note(ledger, by, "destroy", "all-expired")
    return report


def _note(ledger: Ledger, by: str | None, verb: str, subject: str, detail: str = "") -> None:
    """Note what was done, afterwards, and raise nothing: a kill needs no ledger."""
    if by is None:
        return
    try:
        ledger.actions.add(by or process.user(), verb, subject, time.time(), detail)
    except VmrunnerError as error:
        log.warning("the action %s (%s) is not noted: %s", verb, subject, error)
