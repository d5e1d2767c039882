"""Prices, asked of the clouds and kept in the ledger. No start waits for them: a VM is asked for at
the rate that is known by then."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.providers import TellsPrices
from vmrunner.providers.retired_providers import present

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

log = logging.getLogger("vmrunner.prices")

#: Seconds. Spot moves by the hour; older than that prices are asked for anew.
FRESH: Final = 6 * 3600.0


def refresh(ledger: Ledger, providers: Mapping[str, Provider]) -> list[str]:
    """Ask the clouds of these providers whose prices are old. Returns the names of those that
    told; one that does not is logged, and keeps no other from it."""
    now = time.time()
    times = {(age.kind, age.place): age.newest for age in ledger.prices.ages()}
    refreshed: list[str] = []
    for name, provider in sorted(providers.items()):
        driver = present(provider)
        try:
            if isinstance(driver, TellsPrices) and _is_old(driver, times, now):
                for scope, prices in driver.told_prices().items():
                    ledger.prices.store(scope, prices, now)
                refreshed.append(name)
        except LedgerError:
            raise
        except VmrunnerError as error:
            log.warning("prices of %s: %s", name, error)
        except Exception:  # it may be a third party's driver
            log.exception("prices of %s", name)
    return refreshed


@contextlib.contextmanager
def refreshed_beside(
    ledger: Ledger, providers: Mapping[str, Provider], seconds: float
) -> Iterator[None]:
    """Do so beside the block, for a command: at its end they are waited for until so many seconds
    are over since its beginning."""

    def work() -> None:
        with contextlib.suppress(VmrunnerError):
            refresh(ledger, providers)

    until = time.monotonic() + seconds
    thread = threading.Thread(target=work, name="prices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(max(0.0, until - time.monotonic()))


def _is_old(driver: Provider, asked_at: Mapping[tuple[str, str], float], now: float) -> bool:
    times: Iterable[float] = (
        asked_at.get((scope.kind, scope.place), 0.0) for scope in driver.scopes
    )
    return now - max(times, default=0.0) >= FRESH
