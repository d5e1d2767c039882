"""Pools, as ops see them: what each wants and has, how well it serves, what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmrunner.core import pricing
from vmrunner.core.lifecycle import FORGOTTEN
from vmrunner.errors import ConfigError, NotFound
from vmrunner.lib import process, units
from vmrunner.model import (
    MOST_VMS,
    EmptyReason,
    Finding,
    Instance,
    InstanceState,
    Level,
    Pool,
    PoolPlace,
)
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.provider_set import ProviderSet

#: Hit rate and start times are of the builds of so many seconds.
WINDOW: Final = 7 * 86400.0
#: As many failures in a row are no accident: doctor and alarms tell of them.
FAILING: Final = 3
#: States of VMs that a build may have, and of those that are on their way there.
_WAITING: Final = (InstanceState.READY, InstanceState.PARKED)
_MAKING: Final = (InstanceState.REQUESTED, InstanceState.BOOTING, InstanceState.PARKING)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlaceStatus:
    """A pool at one place now: on one host for VMs that only that one reaches."""

    state: PoolPlace
    have: int
    making: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """One pool now, over all its places. `have`: ready or parked, and unclaimed; `making`: on
    their way; `claimed`: with a build. `hit_rate`, `p50`, `p95` (seconds from queued to the first
    step) are of the last 7 days; None: no build came. `idle_usd_today`: since midnight, UTC."""

    pool: Pool
    want: int | None  # None: no engine fills it yet
    have: int
    making: int
    claimed: int
    builds: int
    hit_rate: float | None
    p50: float | None
    p95: float | None
    idle_usd_today: float
    empty_reason: EmptyReason | None
    by_place: tuple[PoolPlaceStatus, ...] = ()


def status(ledger: Ledger, providers: ProviderSet) -> list[PoolStatus]:
    """Return all pools, by name."""
    now = time.time()
    counts = ledger.pools.counts(now - WINDOW)
    found = []
    for pool in ledger.pools.all():
        rows = ledger.pools.instances(pool.name, _midnight(now))
        present = [row for row in rows if row.state is not InstanceState.GONE]
        free = [row for row in present if row.build is None]
        have = sum(row.state in _WAITING for row in free)
        count = counts.get(pool.name)
        spans = sorted(ledger.pools.served(pool.name, now - WINDOW))
        by_place = tuple(_places(pool, free, now))
        wants = [place.state.want for place in by_place if place.state.want is not None]
        found.append(
            PoolStatus(
                pool=pool,
                want=sum(wants) if wants else None,
                have=have,
                making=sum(row.state in _MAKING for row in free),
                by_place=by_place,
                claimed=sum(
                    row.build is not None and row.state is not InstanceState.DELETING
                    for row in present
                ),
                builds=count.builds if count else 0,
                hit_rate=count.hits / count.builds if count else None,
                p50=_quantile(spans, 0.5),
                p95=_quantile(spans, 0.95),
                idle_usd_today=sum(
                    pricing.idle_cost(
                        row,
                        _midnight(now),
                        providers.time_at(row.provider, row.scope),
                    )
                    for row in rows
                ),
                empty_reason=_empty(ledger, pool, have),
            )
        )
    return found


def _places(pool: Pool, free: list[Instance], now: float) -> Iterator[PoolPlaceStatus]:
    """The places at which an engine fills it. One without news for long is
    left out: its host is off, or is one no more."""
    for state in pool.places:
        if abs(now - state.noted_at) < FORGOTTEN:
            here = [row for row in free if state.place in ("", str(row.scope))]
            yield PoolPlaceStatus(
                state=state,
                have=sum(row.state in _WAITING for row in here),
                making=sum(row.state in _MAKING for row in here),
            )


def failing(entry: PoolStatus) -> list[PoolPlace]:
    """Return the places at which none is ready, and several in a row did not come up or can never
    be made."""
    broken = (EmptyReason.BOOT, EmptyReason.REFUSED)
    return [
        place.state
        for place in entry.by_place
        if place.state.failures >= FAILING and place.state.empty_reason in broken
    ]


def one(ledger: Ledger, providers: ProviderSet, name: str) -> PoolStatus:
    """Return one pool. Raises NotFound."""
    found = {entry.pool.name: entry for entry in status(ledger, providers)}
    if name not in found:
        raise _missing(ledger, name)
    return found[name]


def resize(ledger: Ledger, name: str, size: int, *, by: str = "") -> None:
    """Set another size, until the configuration changes. Raises NotFound."""
    if not 0 <= size <= MOST_VMS:
        raise ConfigError(
            f"size: {size} is not within 0 to {MOST_VMS}", hint="0 keeps none waiting"
        )
    if not ledger.pools.resize(name, size, by or process.user(), time.time()):
        raise _missing(ledger, name)


def drain(ledger: Ledger, name: str, *, by: str = "") -> None:
    """End all its VMs that wait, and make none. Raises NotFound."""
    if not ledger.pools.drain(name, by or process.user(), time.time()):
        raise _missing(ledger, name)


def findings(ledger: Ledger, providers: ProviderSet) -> Iterator[Finding]:
    """Check that each pool has VMs, or is known not to, and saves more than it costs."""
    for entry in status(ledger, providers):
        name = entry.pool.name
        for state in failing(entry):
            yield Finding(
                check=f"pool {name}",
                level=Level.WARNING,
                message=f"it failed {state.failures} times in a row{_at(state)}: "
                f"{_words(entry.pool, state.empty_reason)}. The next try waits up to 10 minutes",
                fix=f"vmrunner pool show {name}; the log of `serve` says why",
            )
        if failing(entry):
            continue
        if reason := trouble(entry):
            yield Finding(
                check=f"pool {name}",
                level=Level.WARNING,
                message=f"no VM of it is ready: {reason}",
                fix=f"vmrunner pool show {name}",
            )
        elif (idle := _idle_usd(ledger, providers, entry)) > _worth(hits := _hits(entry)):
            yield Finding(
                check=f"pool {name}",
                level=Level.WARNING,
                message=(
                    f"its VMs that wait cost ${idle:.2f} in {units.span(WINDOW)}, and "
                    f"{hits} builds were served by it: worth ${_worth(hits):.2f}"
                ),
                fix=f"a smaller size, or hit_rate with max, in [pools.{name}]",
            )
        else:
            yield Finding(
                check=f"pool {name}",
                level=Level.OK,
                message=f"{entry.have} ready of {entry.want if entry.want is not None else '?'}",
            )


def trouble(entry: PoolStatus) -> str:
    """The reason why it is empty, in words, where it needs an operator; else ""."""
    return _words(entry.pool, entry.empty_reason)


def _at(state: PoolPlace) -> str:
    return f" at {state.place}" if state.place else ""


def _words(pool: Pool, reason: EmptyReason | None) -> str:
    spec = pool.spec
    if reason is EmptyReason.MACHINE_TYPE:
        return f"{spec.provider} does not offer machine_type {spec.machine_type!r}"
    return _TROUBLES.get(reason, "") if reason is not None else ""


#: The words, by reason; others need no operator.
_TROUBLES: Final = {
    EmptyReason.CAPACITY: "the provider has no room",
    EmptyReason.CREDENTIALS: "the provider refuses our credentials",
    EmptyReason.REFUSED: "the provider can never make them as they are configured",
    EmptyReason.BOOT: "the last one did not come up",
    EmptyReason.GUARD: "no guard that passed of late ends a pool's VMs: `vmrunner doctor` tells "
    "what it lacks; one of a former vmrunner is installed anew",
    EmptyReason.NO_ENGINE: "no `serve` that lives has its provider",
    EmptyReason.BUDGET: "usd_per_day, or a budget, is spent",
}
#: What it is worth that a build finds a VM, and what no message tells.
_USD_PER_HIT: Final = 0.10
_USD_UNTOLD: Final = 1.0


def _idle_usd(ledger: Ledger, providers: ProviderSet, entry: PoolStatus) -> float:
    """USD that its VMs cost before builds had them, as long as its builds are counted."""
    since = time.time() - WINDOW
    return sum(
        pricing.idle_cost(row, since, providers.time_at(row.provider, row.scope))
        for row in ledger.pools.instances(entry.pool.name, since)
    )


def _hits(entry: PoolStatus) -> int:
    return round((entry.hit_rate or 0.0) * entry.builds)


def _worth(hits: int) -> float:
    return max(_USD_UNTOLD, hits * _USD_PER_HIT)


def _empty(ledger: Ledger, pool: Pool, have: int) -> EmptyReason | None:
    if have:
        return None
    if not background.served(ledger, [pool.spec.provider], staying=True, here=True):
        return EmptyReason.NO_ENGINE
    return pool.empty_reason or EmptyReason.MAKING


def _quantile(values: list[float], share: float) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def _midnight(now: float) -> float:
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day.timestamp()


def _missing(ledger: Ledger, name: str) -> NotFound:
    names = [pool.name for pool in ledger.pools.all()]
    hint = units.did_you_mean(name, names) if names else "vmrunner.toml has no [pools.NAME]"
    return NotFound(f"there is no pool {name!r}", hint=hint)
