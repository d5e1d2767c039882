"""Pools: VMs that are made ahead of demand, each for one build that is not known yet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmrunner.model.allow_list import NetworkPolicy
from vmrunner.model.builds import RUNC, RUNSC
from vmrunner.model.choices import Network, PoolKind
from vmrunner.model.cloud import Spec, Trait


class EmptyReason(StrEnum):
    """Reason why a pool has no VM ready."""

    SIZE = "size"  # it is to have none now
    MAKING = "making"  # they are on their way
    DRAINING = "draining"  # it was drained, or no living `serve` names it
    PAUSED = "paused"  # launching is stopped: `vmrunner drain`
    MAX_INSTANCES = "max_instances"  # there is no place, or builds wait for one
    BUDGET = "usd_per_day"
    CAPACITY = "no_capacity"  # the provider has none now
    MACHINE_TYPE = "machine_type"  # the provider does not offer that type
    CREDENTIALS = "credentials"
    REFUSED = "refused"  # the provider can never make it
    BOOT = "boot_failed"  # the last one did not come up
    GUARD = "guard"  # the installed guard does not know pools
    NO_ENGINE = "no_engine"  # no `serve` that lives has its provider


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """A pool as configured. Durations are seconds, sizes bytes; None: the provider's default.
    `machine_type`: the only one to use; `cpus` and `memory` are then None.

    Exactly one sizing is set: `size`, `schedule`, or `hit_rate` with `least` and `most`."""

    name: str
    provider: str
    container: str
    kind: PoolKind = PoolKind.HOT
    runtime: str = RUNC
    cpus: int | None = None
    memory: int | None = None
    machine_type: str | None = None
    disk: int | None = None
    image: str | None = None
    network: NetworkPolicy = Network.OPEN
    spot: bool = False
    log_bytes: int = 64 << 20
    size: int | None = None
    schedule: tuple[tuple[str, int], ...] = ()  # cron line, UTC, and the size from then on
    hit_rate: float | None = None
    least: int = 0
    most: int = 0
    ttl: float = 3600.0  # of the longest build that it serves
    idle: float = 1800.0  # after which an unclaimed VM is replaced
    usd_per_day: float | None = None

    @property
    def machine(self) -> Spec:
        """The demands on a machine, as a build of this shape has them."""
        return Spec(
            cpus=self.cpus,
            memory=self.memory,
            disk=self.disk,
            spot=self.spot,
            image=self.image,
            network=self.network,
            needs=frozenset({Trait.GVISOR}) if self.runtime == RUNSC else frozenset(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlace:
    """A pool at one place, as the node sees it that fills it there.

    `place`: the scope of a host whose VMs only that host can reach, so that each host has a pool
    of its own; else "". `failures`: refused fillings and VMs that did not come up, in a row, since
    `failing_since` (epoch seconds)."""

    place: str
    want: int | None = None  # its size now
    empty_reason: EmptyReason | None = None
    failures: int = 0
    failing_since: float | None = None
    noted_at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A row of `pools`, as it was when it was read, with its state at all places."""

    spec: PoolSpec
    shape: str
    revision: int
    size: int | None = None  # set by `pool resize`; None: as configured
    draining: bool = False
    named_at: float = 0.0  # when a `serve` that lives last had it in its configuration
    places: tuple[PoolPlace, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def empty_reason(self) -> EmptyReason | None:
        """Reason why no VM of it is ready anywhere; None if one is, or if no place has reported."""
        reasons = [place.empty_reason for place in self.places]
        return None if None in reasons else next(iter(reasons), None)

    def at(self, place: str) -> PoolPlace:
        """Return its state at one place; an empty one if none was reported."""
        return next(
            (entry for entry in self.places if entry.place == place), PoolPlace(place=place)
        )
