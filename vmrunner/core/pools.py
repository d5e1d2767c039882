"""Pools: what a pool needs now, and which builds it serves. Pure.

`now` is the clock of the pool's provider, which its rows are timed by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from vmrunner.core import requirements
from vmrunner.core.lifecycle import POOL_BOOT, pool_death
from vmrunner.model import (
    DYING,
    BuildSpec,
    EmptyReason,
    Instance,
    InstanceState,
    Offer,
    Pool,
    PoolKind,
    PoolSpec,
)

#: Seconds for which the place of a claimed VM is left empty: to make another takes what the build
#: starts with, where the provider is this host.
REFILL_AFTER: Final = 2.0

#: Seconds in which a VM that dies is thought to be gone: a build waits for its place, for no other.
LEAVES_IN: Final = 120.0

_CLAIMABLE: Final = (InstanceState.READY, InstanceState.PARKED)
#: What decides whether a VM is of the pool as it is configured now.
_SHAPE: Final = (
    "provider", "kind", "container", "runtime", "cpus", "memory", "disk", "image", "network",
    "spot", "log_bytes", "ttl", "idle",
)  # fmt: skip


def lifetime(spec: PoolSpec) -> float:
    """Return the seconds from a VM's birth to its deadline."""
    return spec.idle + spec.ttl + POOL_BOOT


def shape_of(spec: PoolSpec, generation: str = "") -> str:
    """The hash of all that its VMs share. VMs of another `generation` of the ledger are not known
    to be unclaimed, so they are of another shape."""
    values = asdict(spec)
    # Only where it is set: a VM made before there were types still belongs to its pool.
    typed = [] if spec.machine_type is None else [spec.machine_type]
    text = json.dumps([generation, *(values[name] for name in _SHAPE), *typed])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def serves(spec: PoolSpec, build: BuildSpec) -> bool:
    """True if a pool is for such a build, but for its machine."""
    shape = requirements.container(build, log_bytes=spec.log_bytes)
    return (
        shape is not None
        and shape == shape.waiting
        and (shape.container, shape.runtime) == (spec.container, spec.runtime)
        and (build.provider, build.network) == (spec.provider, spec.network)
    )


def same_machine(offer: Offer, other: Offer) -> bool:
    """True if both name the same machine, after defaults, wherever it is."""
    return _machine(offer) == _machine(other)


def _machine(offer: Offer) -> tuple[object, ...]:
    return (
        offer.scope.kind, offer.scope.account, offer.machine_type, offer.market, offer.cpus,
        offer.memory, offer.disk, offer.image,
    )  # fmt: skip


def of_type(spec: PoolSpec, offer: Offer) -> bool:
    """True if a pool may be filled with this machine, as far as its type goes. Case says nothing:
    Azure takes either, and tells its own."""
    return spec.machine_type is None or spec.machine_type.lower() == offer.machine_type.lower()


def claimable(
    row: Instance, pool: Pool, build: BuildSpec, offers: Iterable[Offer], now: float
) -> bool:
    """True if a build may have this VM: it is ready, of the pool as it is now, of the machine that
    the build would get, and lives as long as the build may take."""
    return (
        row.build is None
        and row.state in _CLAIMABLE
        and (row.pool, row.shape) == (pool.name, pool.shape)
        and now + build.ttl <= row.deadline
        and any(same_machine(row.offer, offer) for offer in offers)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FillInput:
    """Input of one decision about a pool.

    `want`: its size now. `rows`: its VMs that no build claimed. `headroom`: how many more VMs may
    be. `claimed`: those that builds claimed just now. `waiting`: builds that wait for a place that
    one of its VMs may have. `leaving`: VMs there that die just now, whose places these builds get.
    `paused`: nothing may be launched. `images`: what VMs of its shape would boot now; empty: that
    is not known."""

    pool: Pool
    want: int
    rows: Sequence[Instance]
    now: float
    headroom: int
    claimed: int = 0
    waiting: int = 0
    leaving: int = 0
    paused: bool = False
    forgotten: bool = False
    images: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class FillPlan:
    """A plan: how many VMs to make, which to end and why. `empty`: why none is ready."""

    make: int = 0
    end: tuple[tuple[Instance, str], ...] = ()
    empty: EmptyReason | None = None


def fill(given: FillInput) -> FillPlan:
    """Decide about one pool. Builds that wait come first: no pool fills then, and a VM without a
    build makes room."""
    pool = given.pool
    alive = [row for row in given.rows if row.state not in DYING]
    over = pool.draining or given.forgotten
    end = {row.id: (row, why) for row in alive if (why := _end(row, given, over=over))}
    kept = sorted((r for r in alive if r.id not in end), key=lambda r: (r.created_at, r.id))
    waits = InstanceState.PARKED if pool.spec.kind is PoolKind.PARKED else InstanceState.READY
    spare = [row for row in kept if row.state is waits]
    for row in kept[: max(0, len(kept) - given.want)]:
        end[row.id] = (row, "the pool has more than it wants")
    if given.waiting and given.headroom <= 0:
        free = [row for row in spare if row.id not in end]
        for row in free[: max(0, given.waiting - given.leaving)]:
            end[row.id] = (row, "a build waits for its place")
    short = max(0, given.want - len([r for r in alive if r.id not in end]))
    blocked = over or given.paused or given.waiting > 0
    make = 0 if blocked else min(max(0, short - given.claimed), max(0, given.headroom))
    ready = any(row.id not in end for row in spare)
    postponed = not blocked and 0 < short <= given.claimed
    making = make > 0 or postponed or any(r.state is not waits for r in alive if r.id not in end)
    empty = None if ready else _empty(given, over=over, making=making)
    return FillPlan(make=make, end=tuple(end[name] for name in sorted(end)), empty=empty)


def _end(row: Instance, given: FillInput, *, over: bool) -> str:
    if over:
        return "the pool is drained"
    if row.shape != given.pool.shape:
        return "the pool is another by now"
    if given.images and row.offer.image not in given.images:
        return "its image is not the newest"
    if pool_death(row, given.pool, forgotten=False, instance_now=given.now) is not None:
        return "no build came"
    return ""


def _empty(given: FillInput, *, over: bool, making: bool) -> EmptyReason:
    if over:
        return EmptyReason.DRAINING
    if given.want == 0:
        return EmptyReason.SIZE
    if making:
        return EmptyReason.MAKING
    if given.paused:
        return EmptyReason.PAUSED
    return EmptyReason.MAX_INSTANCES
