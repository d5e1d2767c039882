"""The port over a list of machines in memory, whose cloud ends them at their deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vmrunner.errors import BadOrder, Uncertain
from vmrunner.model import (
    Address,
    Bill,
    Fate,
    Finding,
    Key,
    Kind,
    Level,
    Market,
    Offer,
    Order,
    Outcome,
    Page,
    Power,
    Ref,
    Resource,
    Role,
    Scope,
    Seen,
    Spec,
    Start,
)

USD_HOUR: Final[Mapping[str, float]] = {"small": 36.0, "disk": 3.6}


@dataclass(slots=True)
class Machine:
    """One VM of this cloud."""

    ref: Ref
    order: Order
    created_at: float
    ends_at: float
    stopped: bool = False
    died_at: float | None = None

    def power(self, now: float) -> Power:
        if self.died_at is not None or now >= self.ends_at:
            return Power.DEAD
        return Power.STOPPED if self.stopped else Power.RUNNING


@dataclass(slots=True)
class Machines:
    """The cloud: all that was ever made in it, and its clock."""

    clock: Callable[[], float] = time.time
    made: dict[Ref, Machine] = field(default_factory=dict)


class FormerProvider:
    """One process's view of this cloud."""

    creates = 2

    def __init__(
        self,
        name: str,
        *,
        installation: str,
        used: Collection[str] = (),
        cloud: Machines | None = None,
        region: str = "north",
        machine_types: Sequence[str] = ("small",),
        **_: Any,
    ) -> None:
        self.name = name
        self.installation = installation
        self.cloud = cloud or Machines()
        self._types = tuple(machine_types)
        self._scopes = frozenset(Scope("former", "account", place) for place in (region, *used))

    @property
    def scopes(self) -> frozenset[Scope]:
        return self._scopes

    def now(self) -> float:
        return self.cloud.clock()

    def offers(self, spec: Spec) -> Sequence[Offer]:
        if spec.spot:
            raise BadOrder("spot: there is none here")
        return tuple(
            Offer(
                scope=scope,
                machine_type=machine_type,
                place=scope.place,
                market=Market.ON_DEMAND,
                cpus=spec.cpus or 2,
                memory=spec.memory or 2 << 30,
                disk=spec.disk or 20 << 30,
                image=spec.image or "image-1",
            )
            for scope in sorted(self._scopes)
            for machine_type in self._types
        )

    def create(self, order: Order) -> Ref:
        if order.offer.scope not in self._scopes:
            raise BadOrder(f"{order.offer.scope} is not a scope of {self.name}")
        ref = Ref(order.offer.scope, Kind.INSTANCE, f"m-{order.instance}")
        known = self.cloud.made.get(ref)
        if known is not None and known.order != order:
            raise Uncertain(f"{order.instance} exists, with other parameters")
        if known is None:
            self.cloud.made[ref] = Machine(ref, order, self.now(), order.deadline)
        return ref

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        seen = {}
        for key in ids:
            ref = Ref(key.scope, Kind.INSTANCE, key.ref or f"m-{key.instance}")
            machine = self.cloud.made.get(ref)
            if machine is not None and machine.order.instance == key.instance:
                power = machine.power(self.now())
                seen[key] = Seen(
                    ref=ref,
                    power=power,
                    address=Address("127.0.0.1", 22) if power is Power.RUNNING else None,
                    created_at=machine.created_at,
                    preempted=False,
                    self_ended=False,
                    start=Start.COLD,
                )
        return seen

    def sweep(self) -> Iterator[Page]:
        for scope in sorted(self._scopes):
            alive = [
                Resource(
                    ref=machine.ref,
                    power=machine.power(self.now()),
                    created_at=machine.created_at,
                    tags=_tags(machine.order),
                    parent=None,
                )
                for machine in self.cloud.made.values()
                if machine.ref.scope == scope and machine.power(self.now()) is not Power.DEAD
            ]
            yield Page(scope=scope, kind=Kind.INSTANCE, resources=tuple(alive), time=self.now())

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        outcomes = {}
        for ref in refs:
            machine = self.cloud.made.get(ref)
            alive = machine is not None and machine.power(self.now()) is not Power.DEAD
            if machine is not None and alive:
                machine.died_at = self.now()
            outcomes[ref] = Outcome(fate=Fate.ACCEPTED if alive else Fate.MISSING)
        return outcomes

    def park(self, ref: Ref) -> None:
        self._alive(ref).stopped = True

    def wake(self, ref: Ref) -> None:
        self._alive(ref).stopped = False

    def lower(self, ref: Ref, due: float) -> None:
        machine = self._alive(ref)
        machine.ends_at = min(machine.ends_at, due)

    def bill(self, offer: Offer, role: Role) -> Bill:
        return Bill(on={offer.machine_type: 1.0, "disk": 1.0}, parked={"disk": 1.0})

    def console(self, ref: Ref) -> str:
        return f"console of {ref.id}\n" if ref in self.cloud.made else ""

    def check(self) -> Sequence[Finding]:
        return (Finding(check="delete", level=Level.OK, message=f"obeys {self.installation}"),)

    def _alive(self, ref: Ref) -> Machine:
        machine = self.cloud.made.get(ref)
        if machine is None or machine.power(self.now()) is Power.DEAD:
            raise BadOrder(f"there is no {ref.id}")
        return machine


def _tags(order: Order) -> dict[str, str]:
    return {
        "vmrunner:installation": order.installation,
        "vmrunner:generation": order.generation,
        "vmrunner:instance": order.instance,
        "vmrunner:build": order.build or "",
        "vmrunner:role": order.role.value,
        "vmrunner:expires-at": str(int(order.deadline)),
        "vmrunner:max-ttl": str(int(order.max_ttl)),
    }
