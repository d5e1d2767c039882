"""The cloud of a fault world: what the world must know of it and do to it, and the one in memory.
The others are over HTTP (`http_side`): EC2, Compute Engine and Azure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Protocol

from vmrunner.model import Kind, Power, Ref, Scope
from vmrunner.providers import Provider
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.fake import SCOPE, Call, Clock, Cloud, FakeProvider


class OrderView(Protocol):
    """What was asked for, as far as the promises need it: an `Order` is one."""

    instance: str
    build: str
    deadline: float


class CloudResource(Protocol):
    """One thing that exists or existed: a VM, or with another `ref.kind` a disk and so on."""

    ref: Ref
    tags: Mapping[str, str]
    created_at: float
    order: OrderView | None  # None: not made through the port
    born_of_us: bool  # made through the port, or with what was
    alive: bool  # billing, and no delete of it has been accepted
    power: Power
    stopped: bool
    preempted: bool
    hung: bool
    sealed: bool
    reverted_at: float | None


class CloudSide(Protocol):
    """A cloud and a driver for it. Nothing happens there by itself, only at calls and `settle`."""

    name: str  # of its first provider
    names: list[str]  # of all
    scope: Scope  # of that, the first
    scopes: list[Scope]  # of all
    skew: float
    seals: bool
    least_life: float  # a VM may not be ordered for fewer seconds
    leftovers: tuple[Kind, ...]  # what outlives its VM, and can be planted
    unreachable: set[Scope]  # places that do not answer
    machines: Mapping[Ref, CloudResource]  # all that ever was
    on_call: Callable[[Call], Any] | None  # asked before each call what becomes of it

    def now(self) -> float: ...
    def time_at(self, scope: Scope) -> float:
        """Return the time by which what is there was promised to end."""

    def settle(self) -> None: ...
    def providers(self, installation: str, host: Callable[[], float]) -> Mapping[str, Provider]:
        """One process's view, of whose it is and what its host's clock says; by name."""

    def standing(self) -> list[CloudResource]:
        """Everything that is not dead."""

    def die(self, machine: Any) -> None: ...
    def preempt(self, machine: Any) -> None: ...
    def power_off(self, machine: Any) -> None: ...
    def plant(
        self,
        scope: Scope,
        tags: Mapping[str, str],
        *,
        kind: Kind = Kind.INSTANCE,
        created_at: float | None = None,
    ) -> CloudResource:
        """Make something behind vmrunner's back."""

    def close(self) -> None: ...


class InMemory(Cloud):
    """`providers.fake`, with all its knobs. `layout`: the scopes of each provider, by name."""

    least_life = 0.0
    leftovers = (Kind.DISK,)

    def __init__(
        self,
        clock: Clock,
        layout: Mapping[str, Sequence[Scope]] = MappingProxyType({"fake": [SCOPE]}),
    ) -> None:
        super().__init__(clock)
        self.boot_seconds = self.delete_seconds = 2.0
        self.layout = dict(layout)
        self.hears = False  # do drivers know its time by its answers alone?
        self._alive: list[Any] = []
        self._seen = 0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def names(self) -> list[str]:
        return list(self.layout)

    @property
    def scope(self) -> Scope:
        return self.layout[self.name][0]

    @property
    def scopes(self) -> list[Scope]:
        return [scope for scopes in self.layout.values() for scope in scopes]

    def time_at(self, _scope: Scope) -> float:
        return self.now()

    def providers(self, installation: str, host: Callable[[], float]) -> Mapping[str, FakeProvider]:
        return {
            name: FakeProvider(
                name,
                self,
                scopes=scopes,
                installation=installation,
                clock=CloudClock(host=host, elapsed=self.clock) if self.hears else None,
            )
            for name, scopes in self.layout.items()
        }

    def standing(self) -> list[Any]:
        self.settle()
        fresh = list(itertools.islice(self.machines.values(), self._seen, None))
        self._seen += len(fresh)
        self._alive = [m for m in self._alive + fresh if m.died_at is None]
        return self._alive

    def close(self) -> None:
        """It is gone with the process."""


def with_order(things: Iterable[Any]) -> list[Any]:
    """The VMs among them that were made through the port."""
    return [thing for thing in things if thing.order is not None]


def drawn_layout(draw: Random) -> dict[str, list[Scope]]:
    """Half of the episodes have one scope; the others several, of one provider or of two."""
    scopes = [SCOPE._replace(place=f"zone-{letter}") for letter in "abc"]
    return draw.choice(
        (
            {"fake": scopes[:1]},
            {"fake": scopes[:1]},
            {"fake": scopes},
            {"fake": scopes[:2], "other": scopes[2:]},
        )
    )
