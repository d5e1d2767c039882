"""One pass of the reaper, for whoever asks. What `serve` does all the time is in `daemon`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from vmrunner.errors import VmrunnerError
from vmrunner.reaper import expired, once
from vmrunner.reaper.report import Report
from vmrunner.services import prices

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits, EnginePaths
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet

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
) -> Report:
    """One pass over the ledger and the cloud; waits a little to see dead what it killed. Without a
    ledger, over what is past its deadline by its own tags. `orphans`: also those that the cap
    holds back. Who never serves has prices by it: they are asked for meanwhile, where they are
    old."""
    only = providers.named(provider)
    try:
        ledger = ledgers.open()
    except VmrunnerError as error:
        lost = Report(unread=(f"the ledger is out of reach: {error}",))
        dead = end_expired(
            ledgers, providers, limits, only=only, dry_run=dry_run, seconds=once.SETTLE
        )
        return dead + lost
    opened = providers.all()
    with nullcontext() if dry_run else prices.refreshed_beside(ledger, opened, PRICES_WAIT):
        report = once.reap(
            ledger, opened, limits, paths, dry_run=dry_run, provider=only, orphans=orphans
        )
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
) -> Report:
    """Delete all of this installation that is past its deadline by its own tags; no ledger is
    needed. Waits at most `seconds`, for each provider, until its VMs are seen dead."""
    try:
        ledger = ledgers.open()
    except VmrunnerError:
        ledger = None
    opened, broken = providers.opened()
    return expired.delete_expired(
        ledger,
        opened,
        limits.limits,
        ledgers.installation,
        broken=broken,
        only=only,
        dry_run=dry_run,
        seconds=seconds,
    )
