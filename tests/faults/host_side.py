"""Hosts of a fault world: machines with one clock each, that processes run on. And those with local
VMs, for worlds with more than one: each has a scope of its own under one provider's name, which
only its own processes reach, and keepers that end its VMs at E by the host's clock."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.faults.cloud_side import InMemory
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call, Clock, FakeProvider

if TYPE_CHECKING:
    from tests.faults.node import Node
    from tests.faults.world import World

NAME: Final = "fake"
HOST_A, HOST_B = (Scope(NAME, name, "state") for name in ("host-a", "host-b"))


@dataclass(eq=False)
class Host:
    """A machine. `memory` names what its processes keep on its disk, `skew` is what its clock is
    wrong by, in seconds; `vms`: its local ones, None where all hosts use one cloud."""

    machine: str
    memory: str
    skew: float = 0.0
    boot: str = "b"
    vms: LocalVms | None = None
    off: bool = False  # or asleep: nothing runs there, and its VMs are out of the world
    cut: bool = False  # nothing there reaches the ledger
    gone: bool = False  # for good

    def reaches(self, scope: Scope) -> bool:
        return self.vms is None or self.vms.scope == scope


class LocalVms(InMemory):
    """The VMs of one host. Its clock tells when they were born and when their time is over; what
    lasts so many seconds goes by no clock that somebody may set."""

    def __init__(self, clock: Clock, scope: Scope) -> None:
        self.host = Host(scope.account, f"disk-of-{scope.account}", vms=self)
        self._noted = 0.0  # the skew up to which all is shifted
        super().__init__(clock, {NAME: [scope]})

    def now(self) -> float:
        return self.clock() + self.host.skew

    def settle(self) -> None:
        with self.lock:
            self._shift(self.host.skew - self._noted)
            if self.host.off:
                return
            super().settle()
            now = self.now()
            for machine in [m for m in self._standing.values() if m.order is not None]:
                if now >= machine.order.deadline:
                    self.die(machine)  # by its keeper

    def _shift(self, seconds: float) -> None:
        if not seconds:
            return
        self._noted += seconds
        self._due = [(when + seconds, number, effect) for when, number, effect in self._due]
        for machine in self.machines.values():
            machine.visible_at += seconds
            machine.boots_at += seconds
            if machine.died_at is not None:
                machine.died_at += seconds

    def lose_all(self) -> None:
        """The power fails: all of ours end. What others have there is no business of a test's."""
        for machine in self.standing():
            if machine.born_of_us:
                self.die(machine)


class Hosts:
    """Hosts with local VMs, as the cloud of a world; two of them to begin with."""

    name = NAME
    least_life = skew = 0.0
    leftovers = (Kind.DISK,)

    def __init__(self, clock: Clock) -> None:
        self.clock, self.names = clock, [NAME]
        self.unreachable: set[Scope] = set()
        self._on_call: Callable[[Call], Any] | None = None
        self._knobs: dict[str, Any] = {"boot_seconds": 2.0, "delete_seconds": 2.0}
        self._number = itertools.count(1)
        self.at: dict[Scope, LocalVms] = {}
        for scope in (HOST_A, HOST_B):
            self._add(scope)

    def set(self, **knobs: Any) -> None:
        """What `Cloud` may be like, on each host."""
        self._knobs |= knobs
        for vms in self.at.values():
            for name, value in knobs.items():
                setattr(vms, name, value)

    def add(self) -> Host:
        """One more host."""
        return self._add(Scope(NAME, f"host-{next(self._number)}", "state"))

    def _add(self, scope: Scope) -> Host:
        vms = self.at[scope] = LocalVms(self.clock, scope)
        vms.unreachable = self.unreachable
        self.on_call, knobs = self._on_call, self._knobs
        self.set(**knobs)
        return vms.host

    @property
    def on_call(self) -> Callable[[Call], Any] | None:
        return self._on_call

    @on_call.setter
    def on_call(self, handler: Callable[[Call], Any] | None) -> None:
        self._on_call = handler
        for vms in self.at.values():
            vms.on_call = handler

    @property
    def seals(self) -> bool:
        return bool(self._knobs.get("seals", False))

    @property
    def scopes(self) -> list[Scope]:
        """Of the hosts that are not gone."""
        return [scope for scope, vms in self.at.items() if not vms.host.gone]

    @property
    def scope(self) -> Scope:
        return self.scopes[0]

    @property
    def machines(self) -> Mapping[Ref, Any]:
        return ChainMap(*(vms.machines for vms in self.at.values()))

    def now(self) -> float:
        return self.clock()

    def time_at(self, scope: Scope) -> float:
        return self.at[scope].now()

    def settle(self) -> None:
        for vms in self.at.values():
            vms.settle()

    def providers(self, installation: str, host: Callable[[], float]) -> Mapping[str, FakeProvider]:
        return self.at[self.scope].providers(installation, host)

    def standing(self) -> list[Any]:
        running = (vms for vms in self.at.values() if not vms.host.off)
        return [machine for vms in running for machine in vms.standing()]

    def die(self, machine: Any) -> None:
        self._of(machine).die(machine)

    def preempt(self, machine: Any) -> None:
        self._of(machine).preempt(machine)

    def power_off(self, machine: Any) -> None:
        self._of(machine).power_off(machine)

    def plant(self, scope: Scope, tags: Mapping[str, str], **how: Any) -> Any:
        return self.at[scope].plant(scope, tags, **how)

    def _of(self, machine: Any) -> LocalVms:
        return self.at[machine.ref.scope]

    def close(self) -> None:
        """They are gone with the process."""


def host_at(world: World, scope: Scope) -> Host:
    hosts: Any = world.cloud
    host: Host = hosts.at[scope].host
    return host


def on(world: World, scope: Scope, **options: Any) -> Node:
    """A process on that host."""
    return world.node(host=host_at(world, scope), **options)


def burn(world: World, host: Host) -> None:
    """It is gone for good, its processes and its VMs with it."""
    lose_power(world, host)
    host.gone = True


def lose_power(world: World, host: Host) -> None:
    """All that runs there ends; it is off."""
    for node in world.nodes:
        if node.host is host:
            node.kill()
    assert host.vms is not None
    host.vms.lose_all()
    host.off = True
