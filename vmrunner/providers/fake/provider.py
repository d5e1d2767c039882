"""One process's view of a cloud in memory, through the port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from typing import Final, TypeVar

from vmrunner.errors import BadOrder, ProviderError, Uncertain
from vmrunner.model import (
    ContainerEnd,
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
    Ref,
    Resource,
    Scope,
    Seen,
    Spec,
)
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.fake.cloud import Cloud, FakeMachine
from vmrunner.providers.fake.faults import Call, Fault, Plan, raised

T = TypeVar("T")

SCOPE: Final = Scope("fake", "account", "zone-a")


class FakeProvider:
    """One process's view of a `Cloud`. `scopes` may be changed under a running engine, as when a
    profile is pointed at another account. `installation`: whose VMs a look by name may find; "":
    those of all. `clock`: tells the time by the dates of the cloud's answers, as drivers
    do, and until the first by its host; None: it is the cloud's own. It arms, and seals, where the
    cloud does when it is made."""

    creates = 8
    holds_allow_lists = True
    holds_no_network = True

    def __init__(
        self,
        name: str,
        cloud: Cloud,
        *,
        scopes: Sequence[Scope] = (SCOPE,),
        machine_types: Sequence[str] = ("small",),
        usd_hour: float = 0.1,
        page_size: int = 100,
        installation: str = "",
        clock: CloudClock | None = None,
    ) -> None:
        self.name = name
        self.cloud = cloud
        self.machine_types = tuple(machine_types)
        self.usd_hour = usd_hour
        self.page_size = page_size
        self.installation = installation
        self._clock = clock
        self._scopes = tuple(scopes)
        if cloud.arms is not None:
            self.arm = self._arm
        if cloud.seals:
            self.seal = self._seal
        if cloud.guarded is not None:
            self.guarded_roles = self._guarded_roles

    @property
    def scopes(self) -> frozenset[Scope]:
        """Verified, that is by a call."""
        self._note_date()
        return frozenset(self._scopes)

    @scopes.setter
    def scopes(self, scopes: Sequence[Scope]) -> None:
        self._scopes = tuple(scopes)

    def now(self) -> float:
        return self.cloud.now() if self._clock is None else self._clock.now()

    def offers(self, spec: Spec) -> Sequence[Offer]:
        for _ in range(2):  # real drivers ask for images, places and types, and so hear the time
            self._note_date()
        return self._call("offers", lambda: self._offers(spec), None, spec)

    def _offers(self, spec: Spec) -> tuple[Offer, ...]:
        markets = (Market.SPOT, Market.ON_DEMAND) if spec.spot else (Market.ON_DEMAND,)
        return tuple(
            Offer(
                scope=scope,
                machine_type=machine_type,
                place=scope.place,
                market=market,
                cpus=spec.cpus or 2,
                memory=spec.memory or 2 << 30,
                disk=spec.disk or 20 << 30,
                image=spec.image or "image-1",
                usd_hour=self.usd_hour,
            )
            for market in markets
            for machine_type in self.machine_types
            for scope in self._scopes
        )

    def create(self, order: Order) -> Ref:
        def birth() -> Ref:
            if order.offer.scope not in self._scopes:
                raise BadOrder(f"{order.offer.scope} is not a scope of {self.name}")
            return self.cloud.create(order).ref

        return self._call("create", birth, order.offer.scope, order.instance)

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        """Scope by scope, as drivers do: one that cannot be read shows none of its own and hides no
        other. Raises when nothing was read."""
        found: dict[Key, Seen] = {}
        failures: list[ProviderError] = []
        for scope in self._last_the_dead({key.scope for key in ids}):
            in_scope = [key for key in ids if key.scope == scope]
            try:
                found |= self._call("look", partial(self._seen, in_scope), scope, len(in_scope))
            except ProviderError as error:
                failures.append(error)
        if failures and not found:
            raise failures[0]
        return found

    def _seen(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        now = self.cloud.now()
        machines = ((key, self.cloud.find(key, self.installation)) for key in keys)
        return {
            key: machine.seen(now)
            for key, machine in machines
            if machine is not None and self.cloud.shows(machine)
        }

    def sweep(self) -> Iterator[Page]:
        """Scope beside scope, as drivers do: one that keeps its answers back delays no other, and
        its time runs out once for all kinds."""
        for scope in self._last_the_dead(self._scopes):
            if scope in self.cloud.unreachable:
                self.cloud.clock.sleep(self.cloud.timeout)
            for kind in self.cloud.kinds:
                yield from self._pages(scope, kind)

    def _last_the_dead(self, scopes: Collection[Scope]) -> list[Scope]:
        own_scopes = [scope for scope in self._scopes if scope in scopes]
        return sorted(own_scopes, key=lambda scope: scope in self.cloud.unreachable)

    def _pages(self, scope: Scope, kind: Kind) -> Iterator[Page]:
        start = 0
        shown: list[Resource] | None = None
        while True:
            plan = self.cloud.plan(Call("sweep", self.name, scope, kind.value))
            if plan.fault in (Fault.DELAY, Fault.LATE):
                self.cloud.clock.sleep(plan.seconds)
            if scope in self.cloud.unreachable or raised(plan) is not None:
                error = "unreachable" if raised(plan) is None else plan.fault.value
                yield Page(scope=scope, kind=kind, error=error, time=self.cloud.now())
                return
            self._note_date(plan)
            now = self.cloud.now()
            shown = shown if shown is not None else self.cloud.visible(scope, kind)
            part = tuple(shown[start : start + self.page_size])
            start += self.page_size
            if plan.fault is Fault.PARTIAL_PAGE:
                half = part[: len(part) // 2]
                yield Page(scope=scope, kind=kind, resources=half, error="partial", time=now)
                return
            more = start < len(shown)
            yield Page(scope=scope, kind=kind, resources=part, time=now, more=more)
            if not more:
                return

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        """A call that fails as a whole is an outcome for each: nothing is raised for a batch."""
        done: dict[Ref, Outcome] = {}
        for scope in self._last_the_dead({ref.scope for ref in refs}):
            here = tuple(ref for ref in refs if ref.scope == scope)

            def death(here: Sequence[Ref] = here) -> dict[Ref, Outcome]:
                return {ref: self.cloud.delete(ref, force=force) for ref in here}

            try:
                done |= self._call("delete", death, scope, here)
            except ProviderError as error:
                done |= dict.fromkeys(here, Outcome(fate=Fate.FAILED, error=str(error)))
        unreached = (ref for ref in refs if ref not in done)
        return done | {
            ref: Outcome(fate=Fate.FAILED, error=f"{ref.scope} cannot be reached")
            for ref in unreached
        }

    def _arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        return self._call("arm", lambda: self.cloud.arm(ref, instance, deadline), ref.scope, ref)

    def _seal(self, ref: Ref) -> None:
        def off() -> None:
            self.cloud.machines[ref].sealed = True

        self._call("seal", off, ref.scope, ref)

    def park(self, ref: Ref) -> None:
        self._call("park", lambda: self.cloud.park(self._machine(ref)), ref.scope, ref)

    def wake(self, ref: Ref) -> None:
        self._call("wake", lambda: self.cloud.wake(self._machine(ref)), ref.scope, ref)

    def _machine(self, ref: Ref) -> FakeMachine:
        machine = self.cloud.machines.get(ref)
        if machine is None or machine.died_at is not None:
            raise BadOrder(f"there is no {ref.id}")
        return machine

    def ended(self, ref: Ref) -> ContainerEnd | None:
        return self._call("ended", lambda: self._machine(ref).container, ref.scope, ref)

    def console(self, ref: Ref) -> str:
        return self._call("console", lambda: self.cloud.consoles.get(ref.id, ""), ref.scope, ref.id)

    def check(self) -> Sequence[Finding]:
        return (Finding(check="delete", level=Level.OK, message="the fake cloud obeys"),)

    def _guarded_roles(self) -> frozenset[str] | None:
        return self._call("guarded_roles", lambda: self.cloud.guarded, None, "")

    def _call(self, method: str, effect: Callable[[], T], scope: Scope | None, about: object) -> T:
        plan = self.cloud.plan(Call(method, self.name, scope, about))
        if scope in self.cloud.unreachable:
            self.cloud.clock.sleep(self.cloud.timeout)
            raise Uncertain(f"{scope} cannot be reached")
        error = raised(plan)
        if plan.fault is Fault.DELAY:
            self.cloud.clock.sleep(plan.seconds)
            self.cloud.settle()
        if plan.fault is Fault.LATE:
            self.cloud.later(self.cloud.now() + plan.seconds, effect)
        elif error is None or plan.fault is Fault.LOST_RESPONSE:
            with self.cloud.lock:
                answer = effect()
            if error is None:
                self._note_date(plan)
                return answer
        assert error is not None
        raise error

    def _note_date(self, plan: Plan | None = None) -> None:
        """The date of an answer."""
        if self._clock is not None:
            wrong = plan.seconds if plan is not None and plan.fault is Fault.WRONG_DATE else 0.0
            self._clock.observe(formatdate(self.cloud.now() + wrong, usegmt=True))


class WallClock:
    """Real time, for a fake that people try."""

    def __call__(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)
