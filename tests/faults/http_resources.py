"""What exists in a cloud behind HTTP, in a fault world's words (`cloud_side.CloudResource`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vmrunner.model import TAG, Power, Ref


class OrderTags(NamedTuple):
    """What was asked for, by the tags of the request."""

    instance: str
    build: str  # empty: it is for a pool
    deadline: float

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> OrderTags:
        deadline = float(tags[f"{TAG}expires-at"])
        return cls(tags[f"{TAG}instance"], tags.get(f"{TAG}build", ""), deadline)


@dataclass(eq=False, kw_only=True)
class HttpResource:
    """What is no VM. `local`: the endpoint's own view of it, where it has one."""

    ref: Ref
    tags: Mapping[str, str]
    created_at: float
    born_of_us: bool
    exists: Callable[[], bool] = field(default=lambda: True)
    local: Any = None
    order: OrderTags | None = None
    hung: bool = False  # the guest is dead, the machine bills
    stopped = preempted = sealed = False
    reverted_at = None

    @property
    def power(self) -> Power:
        return Power.RUNNING if self.exists() else Power.DEAD

    @property
    def alive(self) -> bool:
        return self.exists()


class HttpVm(HttpResource):
    """A VM, `local` being the endpoint's own machine. Each cloud has its own words for the rest."""

    @property
    def alive(self) -> bool:
        return bool(self.local.alive)
