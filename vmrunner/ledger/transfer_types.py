"""The types that only the ledger and its callers exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NotRequired, TypedDict

from vmrunner.model import (
    LOCAL_TENANT,
    Access,
    BuildRecord,
    BuildUsage,
    Death,
    Instance,
    Order,
    Process,
    Reason,
    Result,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchRequest:
    """An order to start one build on one new instance, made from what was seen of the build; or a
    VM for a pool or a template, with no build.

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
    ahead: float = 0.0  # seconds by which its clock was ahead of the database's, at its last beat

    @property
    def beat_at(self) -> float:
        """Return its last beat, by the clock that all share (`Engines.now`)."""
        return self.seen_at - self.ahead


class Lease(NamedTuple):
    """A lease as it is stored: who has it, and until when, by the clock of that one."""

    holder: str
    until: float


class DeathMark(NamedTuple):
    """Death that an instance is marked with, and the message of its row. No id: its build's."""

    death: Death
    instance: str | None = None
    message: str = ""


class BuildEnd(TypedDict):
    """End of a build. `now`: its provider's clock. `collected`: the epoch at which its artifacts
    were brought. `death`: what its instance dies of from then on."""

    epoch: int
    result: Result
    reason: Reason
    now: float
    exit_code: NotRequired[int | None]
    message: NotRequired[str]
    collected: NotRequired[int | None]
    usage: NotRequired[BuildUsage]
    death: NotRequired[Death | None]
