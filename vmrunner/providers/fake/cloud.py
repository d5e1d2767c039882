"""The truth behind `providers.fake`: what exists, how it fails, and a clock that obeys the test.

Nothing here happens by itself: things that are due happen at the next call or `settle()`.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from vmrunner.errors import ProviderError, Uncertain
from vmrunner.model import (
    MORTAL,
    TAG,
    Address,
    ContainerEnd,
    Fate,
    Key,
    Kind,
    Order,
    Outcome,
    Power,
    Reason,
    Ref,
    Resource,
    Scope,
    Seen,
    Start,
    tags_of,
)
from vmrunner.providers.fake.faults import Call, Fault, Plan

#: Tags of what shows no names.
_WHOSE: Final = tuple(f"{TAG}{name}" for name in ("installation", "generation", "role"))


class Ticking(Protocol):
    """A clock that can also let time pass."""

    def __call__(self) -> float:
        """Epoch seconds."""

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""


class Clock:
    """Virtual time: it moves when it is told to."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        self._now += seconds
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@dataclass(slots=True, eq=False)
class FakeMachine:
    """One thing that exists or existed: a VM, or with another `ref.kind` a disk and so on."""

    ref: Ref
    tags: dict[str, str]
    created_at: float
    visible_at: float
    boots_at: float
    order: Order | None = None  # None: not made through the port
    parent: FakeMachine | None = None
    armed: FakeMachine | None = None  # of a schedule: the VM that it ends
    children: list[FakeMachine] = field(default_factory=list)
    stopped: bool = False
    self_ended: bool = False
    preempted: bool = False
    hung: bool = False  # the guest is dead, the machine bills
    protected: bool = False  # until a forced delete
    sealed: bool = False  # its metadata service is off
    undeletable: bool = False  # every delete fails
    stuck: bool = False  # a delete is accepted; only a forced one ends it
    reverts: int = 0  # so many accepted deletes come to nothing
    delete_accepted: float | None = None  # when a delete was first accepted and still stands
    reverted_at: float | None = None  # when an accepted delete last came to nothing
    died_at: float | None = None
    tombstone: float = 3600.0  # so long it is shown as dead
    near: str = ""  # what makes it look like vmrunner's, whatever its tags say
    unfit: Reason | None = None  # it cannot be placed
    container: ContainerEnd | None = None  # of a unit: how its container ended

    @property
    def born_of_us(self) -> bool:
        """Made through the port, or with what was."""
        return any(origin is not None for origin in (self.order, self.parent, self.armed))

    @property
    def alive(self) -> bool:
        """Billing, and no delete of it has been accepted (design §2)."""
        return self.died_at is None and self.delete_accepted is None

    @property
    def power(self) -> Power:
        if self.died_at is not None:
            return Power.DEAD
        if self.delete_accepted is not None:
            return Power.STOPPING
        return Power.STOPPED if self.stopped else Power.RUNNING

    def visible(self, now: float) -> bool:
        if self.died_at is not None:
            return self.visible_at <= now < self.died_at + self.tombstone
        return self.visible_at <= now

    def power_at(self, now: float) -> Power:
        power = self.power
        return Power.PENDING if power is Power.RUNNING and now < self.boots_at else power

    def seen(self, now: float) -> Seen:
        power = self.power_at(now)
        if self.unfit is not None:
            power = Power.PENDING if power is Power.RUNNING else power
        return Seen(
            ref=self.ref,
            power=power,
            address=Address("127.0.0.1", 22) if power is Power.RUNNING else None,
            created_at=self.created_at,
            preempted=self.preempted,
            self_ended=self.self_ended,
            unfit=self.unfit,
            detail="it cannot be placed" if self.unfit else "",
            start=Start.COLD,
        )

    def shown(self, now: float) -> Resource:
        parent = self.parent.ref if self.parent and self.parent.died_at is None else None
        return Resource(
            ref=self.ref,
            power=self.power_at(now),
            created_at=self.created_at,
            tags=dict(self.tags),
            parent=parent,
            near=self.near,
        )


class Cloud:
    """Everything that exists, and the knobs. All attributes may be changed at any time."""

    def __init__(self, clock: Ticking) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.skew = 0.0  # the cloud's clock against `clock`
        self.boot_seconds = 0.0
        self.delete_seconds = 0.0  # from an accepted delete to death
        self.tombstone = 3600.0  # so long the dead are shown; 0: they just vanish
        self.visibility_lag = 0.0  # so long the newborn are not shown
        self.unsteady = 0.0  # so long after that one read shows them and the next may not
        self.chance = random.Random(0)  # noqa: S311 - a draw, not a secret
        self.token_seconds: float | None = None  # so long a create is idempotent; None: for ever
        self.native_deadline = False  # the cloud itself ends a VM at E
        self.arms: float | None = None  # it ends an armed VM so many seconds past E; None: never
        self.shows_names = True  # else it shows whose a VM is, and not which
        self.unplaceable: dict[str, Reason] = {}  # machine types that are accepted, and never come
        self.seals = False  # it has a metadata service that can be switched off
        self.guest_timer: float | None = None  # the guest ends itself so long past E, if it can
        self.poweroff_kills = True  # a guest's own poweroff: dead, else stopped and billing …
        self.stop_disarms = False  # … and without the cloud's own deadline
        self.guarded: frozenset[str] | None = None  # roles that its guard ends; None: it has none
        self.disks = False  # each VM has a disk, a resource of its own …
        self.belongings: Sequence[Kind] = (Kind.DISK,)  # … or these
        self.disks_stay = False  # … which outlives it
        self.unreachable: set[Scope] = set()  # these do not answer …
        self.timeout = 0.0  # … and each question waits so many seconds for that
        self.on_call: Callable[[Call], Plan | Fault | None] | None = None
        self.machines: dict[Ref, FakeMachine] = {}  # all that ever was
        self.consoles: dict[str, str] = {}
        self.counts: Counter[str] = Counter()  # calls by method
        self._standing: dict[Ref, FakeMachine] = {}
        self._by_instance: dict[tuple[Scope, str], FakeMachine] = {}  # the token of a create
        self._named: dict[tuple[Scope, str], list[FakeMachine]] = {}  # VMs, by the tag of their id
        self._schedules: dict[tuple[Ref, str], FakeMachine] = {}
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count(1)
        self._faults: dict[str, deque[Plan]] = {}

    def now(self) -> float:
        return self.clock() + self.skew

    # --- faults ---

    def fail(self, method: str, *faults: Fault, seconds: float = 0.0) -> None:
        """The next calls of `method` (offers, create, look, sweep, delete, …) fare like this."""
        queue = self._faults.setdefault(method, deque())
        queue.extend(Plan(fault, seconds) for fault in faults)

    def plan(self, call: Call) -> Plan:
        """Count one call and say what becomes of it."""
        with self.lock:
            self.settle()
            self.counts[call.method] += 1
            chosen = self.on_call(call) if self.on_call else None
            if chosen is None:
                queue = self._faults.get(call.method)
                chosen = queue.popleft() if queue else Plan()
        return Plan(chosen) if isinstance(chosen, Fault) else chosen

    def later(self, when: float, effect: Callable[[], object]) -> None:
        """Let `effect` happen at `when` on the cloud's clock."""
        with self.lock:
            heapq.heappush(self._due, (when, next(self._number), effect))

    def settle(self) -> None:
        """Let all happen that is due."""
        with self.lock:
            while self._due and self._due[0][0] <= self.now():
                with contextlib.suppress(ProviderError):  # no caller waits for the answer any more
                    heapq.heappop(self._due)[2]()

    # --- what the port does ---

    def create(self, order: Order) -> FakeMachine:
        now = self.now()
        token = (order.offer.scope, order.instance)
        existing = self._by_instance.get(token)
        lives = self.token_seconds is None or (
            existing and now < existing.created_at + self.token_seconds
        )
        if existing is not None and lives:
            if existing.order != order:
                raise Uncertain(f"{order.instance} exists, with other parameters")
            return existing
        machine = self.plant(order.offer.scope, self._tags_of(order), order=order)
        machine.unfit = self.unplaceable.get(order.offer.machine_type)
        if self.disks:
            for kind in self.belongings:
                child = self.plant(order.offer.scope, self._tags_of(order), kind=kind)
                child.parent = machine
                machine.children.append(child)
        if self.native_deadline:
            self.later(order.deadline, lambda: self._deadline(machine))
        if self.guest_timer is not None:
            at = order.deadline + self.guest_timer
            self.later(at, lambda: None if machine.hung else self.power_off(machine))
        return machine

    def _tags_of(self, order: Order) -> dict[str, str]:
        tags = tags_of(order)
        return tags if self.shows_names else {name: tags[name] for name in _WHOSE}

    def _deadline(self, machine: FakeMachine) -> None:
        if not (machine.stopped and self.stop_disarms):
            self.die(machine)

    def find(self, key: Key, installation: str = "") -> FakeMachine | None:
        """Find a machine by the cloud's own id where it is known, else by ours in the tag: of
        several one that lives, and then the oldest. `installation`: only what is its own."""
        if key.ref is not None:
            return self.machines.get(Ref(key.scope, Kind.INSTANCE, key.ref))
        named = self._named.get((key.scope, key.instance), ()) if self.shows_names else ()
        candidates = [
            machine for machine in named if not installation or _is_of(machine, installation)
        ]
        return min(
            candidates,
            key=lambda machine: (machine.died_at is not None, machine.created_at),
            default=None,
        )

    def visible(self, scope: Scope, kind: Kind) -> list[Resource]:
        """Machines that a sweep shows: of every owner, but not the dead."""
        with self.lock:
            now = self.now()
            return [
                machine.shown(now)
                for machine in self._standing.values()
                if (machine.ref.scope, machine.ref.kind) == (scope, kind) and self.shows(machine)
            ]

    def shows(self, machine: FakeMachine) -> bool:
        """True if this read shows the machine."""
        now = self.now()
        unsteady = now < machine.visible_at + self.unsteady
        return machine.visible(now) and not (unsteady and self.chance.random() < 0.5)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds that a sweep must list: VMs, disks, and all others that were ever made."""
        with self.lock:  # births go on meanwhile
            made = {ref.kind for ref in self.machines} | {Kind.INSTANCE, Kind.DISK}
        return tuple(kind for kind in Kind if kind in made)

    def delete(self, ref: Ref, *, force: bool = False) -> Outcome:
        machine = self._standing.get(ref)
        now = self.now()
        if machine is None or not self.shows(machine):
            return Outcome(fate=Fate.MISSING)
        if force:
            machine.protected = False
        if machine.undeletable or machine.protected:
            return Outcome(fate=Fate.FAILED, error="protected")
        if machine.parent is not None and machine.parent.died_at is None:
            return Outcome(fate=Fate.FAILED, error="in use")
        if machine.delete_accepted is None or force:
            machine.delete_accepted = machine.delete_accepted or now
            if force or not machine.stuck:
                self.later(now + self.delete_seconds, lambda: self._deleted(machine))
        return Outcome(fate=Fate.ACCEPTED)

    def _deleted(self, machine: FakeMachine) -> None:
        if machine.reverts > 0:
            machine.reverts -= 1
            machine.delete_accepted, machine.reverted_at = None, self.now()
        else:
            self.die(machine)

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        """A schedule, like EC2's: it ends the VM, unless that is protected, and then itself."""
        if self.arms is None:
            return None
        schedule = self._schedules.get((ref, instance))
        if schedule is not None and schedule.died_at is None:
            return schedule.ref
        vm = self.machines[ref]
        tags = {k: v for k, v in vm.tags.items() if not k.endswith((":generation", ":expires-at"))}
        at = deadline + self.arms
        tags["vmrunner:expires-at"] = str(int(at + 300))
        made = self._schedules[ref, instance] = self.plant(ref.scope, tags, kind=Kind.SCHEDULE)
        made.armed = vm
        self.later(at, lambda: self._fire(made, vm))
        return made.ref

    def _fire(self, schedule: FakeMachine, vm: FakeMachine) -> None:
        if schedule.died_at is None and not vm.protected:
            self.die(vm)
        self.die(schedule)

    # --- what befalls a machine ---

    def plant(
        self,
        scope: Scope,
        tags: Mapping[str, str],
        *,
        kind: Kind = Kind.INSTANCE,
        order: Order | None = None,
        created_at: float | None = None,
        near: str = "",
    ) -> FakeMachine:
        """Make something behind vmrunner's back: another installation's, or a forgotten one."""
        with self.lock:
            now = self.now()
            machine = FakeMachine(
                ref=Ref(scope, kind, f"{kind.value}-{next(self._number)}"),
                tags=dict(tags),
                created_at=now if created_at is None else created_at,
                visible_at=now + self.visibility_lag,
                boots_at=now + self.boot_seconds,
                order=order,
                tombstone=self.tombstone,
                near=near,
            )
            self.machines[machine.ref] = self._standing[machine.ref] = machine
            if order is not None:
                self._by_instance[scope, order.instance] = machine
            if kind is Kind.INSTANCE:
                name = machine.tags.get(f"{TAG}instance", "")
                self._named.setdefault((scope, name), []).append(machine)
            return machine

    def die(self, machine: FakeMachine) -> None:
        """End a machine: deleted, its host burnt, its process killed."""
        if machine.died_at is None:
            machine.died_at = self.now()
            self._standing.pop(machine.ref, None)
            for child in machine.children:
                if not self.disks_stay:
                    self.die(child)

    def power_off(self, machine: FakeMachine) -> None:
        """The guest switches itself off."""
        if machine.died_at is None:
            machine.self_ended = True
            machine.stopped = True
            if self.poweroff_kills:
                self.die(machine)

    def park(self, machine: FakeMachine) -> None:
        """Stop it: its deadline and its guest's timer are gone with that."""
        machine.stopped = True

    def wake(self, machine: FakeMachine) -> None:
        """Let it go on, and boot."""
        if machine.stopped:
            machine.stopped, machine.boots_at = False, self.now() + self.boot_seconds

    def preempt(self, machine: FakeMachine) -> None:
        """The cloud takes a spot machine back."""
        machine.preempted = True
        self.die(machine)

    # --- what a test asks ---

    def of(self, instance: str) -> list[FakeMachine]:
        """Every VM that carries this instance id, or was made for it, in the order of creation."""
        tag = f"{TAG}instance"
        return [
            m
            for m in self.things(Kind.INSTANCE)
            if m.tags.get(tag, m.order.instance if m.order else None) == instance
        ]

    def things(self, kind: Kind | None = None) -> Iterator[FakeMachine]:
        """Yield all that ever was, of one kind or of every, dead or alive, by the time it is
        now."""
        self.settle()
        yield from [m for m in self.machines.values() if kind is None or m.ref.kind is kind]


def _is_of(machine: FakeMachine, installation: str) -> bool:
    own = machine.tags.get(f"{TAG}installation") == installation
    return own and machine.tags.get(f"{TAG}role") in MORTAL
