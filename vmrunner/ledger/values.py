"""The few values that only the ledger and its callers exchange."""

from __future__ import annotations

from dataclasses import dataclass

from vmrunner.model import Access, Instance, Order, Process


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchRequest:
    """A wish to start one build on one new instance, made from what was seen of the build; or a
    VM for a pool, with no build.

    `instance` needs an owner; its epoch and attempt are set by the ledger. Its `created_at` is
    the time of the claim."""

    build_id: str | None
    seen_epoch: int
    instance: Instance
    order: Order
    access: Access


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A process that drives builds from this ledger, at these providers."""

    id: str
    process: Process
    kind: str
    joined_at: float
    seen_at: float
    providers: frozenset[str] = frozenset()
