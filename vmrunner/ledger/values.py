"""The few values that only the ledger and its callers exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmrunner.model import LOCAL_TENANT, Access, BuildRecord, Instance, Order, Process


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
    labels: Mapping[str, str] = field(default_factory=dict)  # of the build, for its budgets
    actor: str = ""  # who submitted it
    tenant: str = LOCAL_TENANT  # … and as which tenant


class Started(list[tuple[BuildRecord | None, Instance]]):
    """Launches that were won. `over_budget`: why others were not let in, by instance."""

    def __init__(self) -> None:
        super().__init__()
        self.over_budget: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A process that drives builds from this ledger, at these providers."""

    id: str
    process: Process
    kind: str
    joined_at: float
    seen_at: float
    providers: frozenset[str] = frozenset()
    version: str = ""  # of the tables that it knows; empty: it does not say
    outdated: bool = False  # that is not the ledger's: it drives nothing any more
