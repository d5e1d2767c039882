"""Hosts with local VMs, for worlds with more than one: each has a scope of its own under one
provider's name, which only its own processes reach, and keepers that end its VMs at E."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.cloud_side import InMemory
from vmrunner.model import Order, Scope
from vmrunner.providers.fake import Clock, FakeProvider

HOST_A, HOST_B = (Scope("fake", name, "state") for name in ("host-a", "host-b"))


class Hosts(InMemory):
    """Two hosts. `here`: the one whose process is made next; `off`: those that are not on, whose
    VMs are out of the world."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, {"fake": [HOST_A, HOST_B]})
        self.native_deadline = True  # keepers
        self.here = HOST_A
        self.off: set[Scope] = set()

    def providers(self, installation: str, host: Callable[[], float]) -> Mapping[str, FakeProvider]:
        found = super().providers(installation, host)
        for provider in found.values():
            provider.scopes = (self.here,)  # type: ignore[assignment]
            provider.now = host  # type: ignore[method-assign]
        return found

    def create(self, order: Order) -> Any:
        assert order.offer.scope not in self.off
        return super().create(order)

    def standing(self) -> list[Any]:
        return [machine for machine in super().standing() if machine.ref.scope not in self.off]

    def burn(self, scope: Scope) -> None:
        """The host is gone for good, and its VMs with it."""
        self.off.add(scope)
        for machine in super().standing():
            if machine.ref.scope == scope:
                self.die(machine)
