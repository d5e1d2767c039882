"""Types of the documents of VMs and pools."""

from __future__ import annotations

from typing_extensions import TypedDict

from vmrunner.model.choices import PoolKind
from vmrunner.model.cloud import Kind, Power
from vmrunner.model.pools import EmptyReason
from vmrunner.services.destroy import DestroyResult
from vmrunner.services.document_types.builds import InstanceDocument, NetworkDocument
from vmrunner.services.document_types.values import Moment, Seconds, Usd


class CloudDocument(TypedDict):
    """A thing of ours, as a cloud shows it."""

    kind: Kind
    scope: str
    ref: str
    power: Power
    created_at: Moment | None
    expires_at: Moment | None


class SeenInstanceDocument(InstanceDocument):
    """A VM beside what its cloud shows of it; `cloud` is null where that shows nothing."""

    cloud: CloudDocument | None


class StrayDocument(TypedDict):
    """A thing of ours that a cloud shows and no row knows."""

    id: str
    state: None
    cloud: CloudDocument


class DestroyDocument(TypedDict):
    """The outcome of the end of a VM."""

    id: str
    result: DestroyResult
    error: str | None


class PoolPlaceDocument(TypedDict):
    """A pool at one place: a host's scope, or "" where all of its VMs are within all's reach."""

    place: str
    want: int | None
    have: int
    making: int
    empty_reason: EmptyReason | None
    failures: int
    failing_since: Moment | None


class PoolTimeDocument(TypedDict):
    """A size from a time on, by a line of cron, in UTC."""

    cron: str
    size: int


class PoolSizingDocument(TypedDict):
    """Sizing of a pool: exactly one of `size`, `schedule` and `hit_rate` is set."""

    size: int | None
    schedule: list[PoolTimeDocument]
    hit_rate: float | None
    min: int
    max: int


class PoolDocument(TypedDict):
    """A pool. `hit_rate`, `p50` and `p95` (seconds to the first step) are of 7 days."""

    name: str
    kind: PoolKind
    want: int | None
    have: int
    making: int
    claimed: int
    hit_rate: float | None
    p50: Seconds | None
    p95: Seconds | None
    idle_usd_today: Usd
    empty_reason: EmptyReason | None
    places: list[PoolPlaceDocument]
    provider: str
    machine_type: str | None
    container: str
    network: NetworkDocument
    sizing: PoolSizingDocument
    builds: int
    ttl: Seconds
    idle: Seconds
    usd_per_day: Usd | None
    resized_to: int | None
    draining: bool
    revision: int
    named_at: Moment
