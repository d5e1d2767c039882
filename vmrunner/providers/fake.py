"""A cloud in memory, for your tests and ours: virtual clock, lost answers, stubborn machines.

    clock = Clock()
    cloud = Cloud(clock)
    provider = FakeProvider("fake", cloud)
    cloud.fail("create", Fault.LOST_RESPONSE)       # the next create happens, its answer is lost
    cloud.unreachable.add(SCOPE)                    # a zone is down
    clock.advance(60)                               # time passes only when you say so

`Cloud` is what exists; a `FakeProvider` is one process's view of it, through the port like any
driver. Several providers, also with other scopes, may share one cloud. What a test wants to know
of the truth it reads in `cloud.machines`, `cloud.things()` and `cloud.calls`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from vmrunner.errors import BadOrder, ProviderError, Uncertain
from vmrunner.model import (
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
    Traits,
)
from vmrunner.providers.fakecloud import Clock, Cloud, Machine
from vmrunner.providers.fakefaults import Call, Fault, Plan, raised

__all__ = [
    "SCOPE",
    "Call",
    "Clock",
    "Cloud",
    "FakeProvider",
    "Fault",
    "Machine",
    "Plan",
    "open",
]

T = TypeVar("T")

SCOPE: Final = Scope("fake", "account", "zone-a")


class FakeProvider:
    """One process's view of a `Cloud`. `scopes` may be changed under a running engine, as when
    somebody points a profile at another account."""

    def __init__(
        self,
        name: str,
        cloud: Cloud,
        *,
        scopes: Sequence[Scope] = (SCOPE,),
        machine_types: Sequence[str] = ("small",),
        usd_hour: float = 0.1,
        page_size: int = 100,
    ) -> None:
        self.name = name
        self.cloud = cloud
        self.machine_types = tuple(machine_types)
        self.usd_hour = usd_hour
        self.page_size = page_size
        self._scopes = tuple(scopes)

    @property
    def scopes(self) -> frozenset[Scope]:
        return frozenset(self._scopes)

    @scopes.setter
    def scopes(self, scopes: Sequence[Scope]) -> None:
        self._scopes = tuple(scopes)

    @property
    def traits(self) -> Traits:
        cloud = self.cloud
        return Traits(
            native_deadline=cloud.native_deadline,
            kinds=cloud.kinds,
            arms=cloud.arms is not None,
            seals=cloud.seals,
        )

    def now(self) -> float:
        return self.cloud.now()

    def offers(self, spec: Spec) -> Sequence[Offer]:
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
        def seen() -> dict[Key, Seen]:
            found: dict[Key, Seen] = {}
            for key in ids:
                if key.scope in self._scopes and key.scope not in self.cloud.unreachable:
                    machine = self.cloud.find(key)
                    if machine is not None and self.cloud.shows(machine):
                        found[key] = machine.seen(self.cloud.now())
            return found

        return self._call("look", seen, None, len(ids))

    def sweep(self) -> Iterator[Page]:
        for scope in self._scopes:
            for kind in self.cloud.kinds:
                yield from self._pages(scope, kind)

    def _pages(self, scope: Scope, kind: Kind) -> Iterator[Page]:
        start = 0
        shown: list[Resource] | None = None
        while True:
            plan = self.cloud.plan(Call("sweep", self.name, scope, kind.value))
            now = self.cloud.now()
            if scope in self.cloud.unreachable or raised(plan) is not None:
                yield Page(scope=scope, kind=kind, error=plan.fault.value, time=now)
                return
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
        def death() -> dict[Ref, Outcome]:
            return {ref: self._delete(ref, force=force) for ref in refs}

        # A call that fails as a whole is an outcome for each: nothing is raised for a batch.
        try:
            return self._call("delete", death, None, tuple(refs))
        except ProviderError as error:
            return {ref: Outcome(fate=Fate.FAILED, error=str(error)) for ref in refs}

    def _delete(self, ref: Ref, *, force: bool) -> Outcome:
        if ref.scope not in self._scopes or ref.scope in self.cloud.unreachable:
            return Outcome(fate=Fate.FAILED, error=f"{ref.scope} cannot be reached")
        return self.cloud.delete(ref, force=force)

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        return self._call("arm", lambda: self.cloud.arm(ref, instance, deadline), ref.scope, ref)

    def seal(self, ref: Ref) -> None:
        def off() -> None:
            self.cloud.machines[ref].sealed = True

        self._call("seal", off, ref.scope, ref)

    def console(self, ref: Ref) -> str:
        return self._call("console", lambda: self.cloud.consoles.get(ref.id, ""), ref.scope, ref.id)

    def check(self) -> Sequence[Finding]:
        return (Finding(check="delete", level=Level.OK, message="the fake cloud obeys"),)

    def _call(self, method: str, effect: Callable[[], T], scope: Scope | None, about: object) -> T:
        plan = self.cloud.plan(Call(method, self.name, scope, about))
        if scope is not None and scope in self.cloud.unreachable:
            raise Uncertain(f"{scope} cannot be reached")
        error = raised(plan)
        if plan.fault is Fault.DELAY:
            self.cloud.clock.sleep(plan.seconds)
        if plan.fault is Fault.LATE:
            self.cloud.later(self.cloud.now() + plan.seconds, effect)
        elif error is None or plan.fault is Fault.LOST_RESPONSE:
            with self.cloud.lock:
                answer = effect()
            if error is None:
                return answer
        assert error is not None
        raise error


class _Real:
    """The wall clock, for a fake that runs in real time."""

    def __call__(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)


def open(name: str, **options: Any) -> FakeProvider:  # noqa: A001
    """A provider of kind `fake` in real time with a cloud of its own, which is gone when the
    process is: for a try-out of the command line, not for builds."""
    return FakeProvider(name, Cloud(_Real()), **options)
