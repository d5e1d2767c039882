"""A cloud over HTTP as that of a fault world: a genuine driver at a local endpoint, what exists
there in the world's words, and each request as a call that may go wrong. `ec2_side`, `gce_side` and
`azure_side` say what is which there."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from vmrunner_localclouds.common.faults import LOST_REQUEST

from tests.faults import images
from tests.faults.http_resources import HttpResource, HttpVm
from vmrunner.model import Kind, Power, Reason, Ref, Scope
from vmrunner.providers import Provider
from vmrunner.providers.fake import Call, Fault, Plan


class HttpSide(abc.ABC):
    """An account of its own, on the world's clock."""

    name: ClassVar[str]  # of its provider
    driver: ClassVar[str]  # its package in `vmrunner.providers`
    seals: bool = False
    least_life: ClassVar[float] = 0.0
    #: Whoever else uses the account. What goes wrong with our requests spares theirs.
    theirs: ClassVar[str]
    #: What another may have there.
    plantable: ClassVar[tuple[Kind, ...]]
    #: Of that, what outlives a VM of ours and is found by a sweep alone.
    leftovers: ClassVar[tuple[Kind, ...]] = (Kind.DISK,)
    #: The requests that list a kind, VMs first, and the one that ends a VM.
    listings: ClassVar[tuple[str, ...]]
    ending: ClassVar[str]
    #: What may befall its VMs in `http_chaos`.
    strikes: ClassVar[tuple[str, ...]] = ("die", "preempt", "power off", "hang", "protect")
    #: Why a build ends where they are all dry.
    dry_reason: ClassVar[Reason] = Reason.NO_CAPACITY
    #: What says how many things are on a page of a list.
    page: ClassVar[str] = ""
    #: What a fault of the cloud in memory is here.
    fates: ClassVar[Mapping[Fault, Any]]
    #: What may befall any request: those of a kind mean the same for who asks.
    troubles: ClassVar[Mapping[str, tuple[Any, ...]]]
    #: What else may befall one, by `Call.method`.
    more: ClassVar[Mapping[str, tuple[Any, ...]]]
    #: How it says that somebody may not.
    denied: ClassVar[Any]
    #: Another configuration, under which a VM would be tagged otherwise.
    retagged: ClassVar[Mapping[str, Any]]

    scope: Scope

    def __init__(self, local: Any) -> None:
        self.local = local
        local.boot_seconds = local.delete_seconds = 2.0
        local.faults.on_request = self._asked
        self.unreachable: set[Scope] = set()
        self.options: dict[str, Any] = {}  # of the providers to come
        self.disks_stay = False  # somebody sees to it that each VM's disk outlives it
        self.on_call: Callable[[Call], Any] | None = None
        self._within = contextlib.ExitStack()
        self._all: dict[Ref, Any] = {}
        self._planting = False

    def close(self) -> None:
        self._within.close()

    @abc.abstractmethod
    def provider(self, installation: str) -> Provider: ...

    @property
    def scopes(self) -> list[Scope]:
        return [self.scope]

    def providers(self, installation: str, _host: Callable[[], float]) -> Mapping[str, Provider]:
        return {self.name: self.provider(installation)}

    @property
    def names(self) -> list[str]:
        return [self.name]

    @abc.abstractmethod
    def call_of(self, request: Any) -> Call:
        """`about` of a listing is its page's token; the rest as `Call` says. `provider`: the
        action."""

    @staticmethod
    @abc.abstractmethod
    def asks(action: str) -> bool:
        """Does it only look?"""

    @abc.abstractmethod
    def dry_up(self) -> None:
        """None of the pools that a build may have gives anything."""

    def fill(self) -> None:
        """They do again."""
        self.local.dry.clear()

    # --- time ---

    @property
    def skew(self) -> float:
        return float(self.local.skew)

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.local.skew = seconds

    def now(self) -> float:
        return float(self.local.now())

    def time_at(self, _scope: Scope) -> float:
        return self.now()

    def settle(self) -> None:
        self.local.settle()

    # --- what exists ---

    @property
    def machines(self) -> Mapping[Ref, Any]:
        with self.local.lock:
            self._take_in()
        return self._all

    def standing(self) -> list[Any]:
        self.settle()
        return [thing for thing in self.machines.values() if thing.power is not Power.DEAD]

    def die(self, machine: HttpVm) -> None:
        machine.local.die()

    def preempt(self, machine: HttpVm) -> None:
        machine.local.preempt()

    def power_off(self, machine: HttpVm) -> None:
        machine.local.power_off()

    @abc.abstractmethod
    def _take_in(self) -> None:
        """Whatever came into being since."""

    def _add(
        self,
        ref: Ref,
        tags: Mapping[str, str],
        exists: Callable[[], bool],
        *,
        local: Any = None,
        born_of_us: bool = True,
    ) -> None:
        """What is no VM."""
        self._all[ref] = HttpResource(
            ref=ref,
            tags=dict(tags),
            created_at=self.now(),
            born_of_us=born_of_us and not self._planting and bool(tags),
            exists=exists,
            local=local,
        )

    # --- what others make ---

    def plant(
        self,
        scope: Scope,
        tags: Mapping[str, str],
        *,
        kind: Kind = Kind.INSTANCE,
        created_at: float | None = None,
    ) -> Any:
        """A VM (with what belongs to it, tagged alike), or something else of `plantable`."""
        made = self._by_others(lambda: self._make(kind, scope, tags))
        planted = next(thing for thing in made if thing.ref.kind is kind)
        if created_at is not None:
            self._born_at(planted, created_at)
        return planted

    def plant_lasting_images(self, installation: str) -> None:
        """Images that nobody may end, whatever tags of this installation's are on them."""
        for tags in images.lasting(installation):
            self._by_others(lambda tags=tags: self._image(tags))  # type: ignore[misc]

    def _by_others(self, make: Callable[[], object]) -> list[Any]:
        """What somebody else makes, at no rate that concerns us."""
        before, throttles = set(self.machines), self.local.throttles
        self._planting, self.local.throttles = True, False
        try:
            make()
            return [thing for ref, thing in self.machines.items() if ref not in before]
        finally:
            self._planting, self.local.throttles = False, throttles

    @abc.abstractmethod
    def _make(self, kind: Kind, scope: Scope, tags: Mapping[str, str]) -> None: ...

    @abc.abstractmethod
    def finish(self, image: HttpResource) -> None:
        """Whoever makes this image has finished it."""

    @abc.abstractmethod
    def _image(self, tags: Mapping[str, str]) -> None:
        """Add one with just these tags."""

    @abc.abstractmethod
    def _born_at(self, planted: HttpResource, then: float) -> None:
        """Let it look as old as that."""

    # --- what goes wrong ---

    def _asked(self, request: Any) -> Any:
        """In the server's thread, while whoever asked waits."""
        if request.key == self.theirs or self.on_call is None:
            return None
        if self.unreachable:
            return LOST_REQUEST
        try:
            fate = self.on_call(self.call_of(request))
        except Exception:  # noqa: BLE001 - the world has noted it, and tells at its next check
            return LOST_REQUEST
        return self.fates[fate.fault] if isinstance(fate, Plan) else fate


def in_turn(sources: Sequence[Callable[[], Iterator[Any]]]) -> Iterator[Any]:
    """In the place of `merged`: one after the other."""
    for source in sources:
        yield from source()
