"""The context of an engine's parts: the ledger, the providers, the clocks, the limits."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from vmrunner.core.scheduling import Capacity
from vmrunner.engine.provider_answers import HOLDS, ProviderAnswers
from vmrunner.errors import LedgerError, ProviderError, Refused, VmrunnerError
from vmrunner.lib.threads import WorkerPool
from vmrunner.model import (
    Access,
    Budget,
    BuildRecord,
    EventKind,
    Instance,
    Limits,
    Offer,
    Order,
    PoolSpec,
    Price,
    Rate,
    Role,
    Scope,
)
from vmrunner.providers import Provider, registry
from vmrunner.providers.hourly_rates import rate_of
from vmrunner.providers.retired_providers import drivers_of, parts, present

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.ledger import Ledger
    from vmrunner.lib.channels import Channel
    from vmrunner.session.job import CacheShelf

#: Ticks after which the scopes of a driver that nothing is of any more are forgotten.
SCOPES_KEPT: Final = 10_000

log = logging.getLogger("vmrunner.engine")


class EnginePaths(Protocol):
    """The directories that an engine uses (`config.Paths` is one)."""

    @property
    def sources(self) -> Path:
        """The directory of packed sources, `<build>.tar`."""

    @property
    def artifacts(self) -> Path:
        """The directory of artifacts, with a directory for each build."""

    @property
    def wake(self) -> Path:
        """The directory of the sockets by which engines are woken."""


class MakesOrders(Protocol):
    """Makes the frozen order for one instance, and the access that goes with its user-data."""

    def __call__(
        self, build: BuildRecord, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        """Pure but for the keys that it makes."""

    def for_pool(
        self, spec: PoolSpec, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        """The same for a VM that waits in a pool."""


SourceOf = Callable[[BuildRecord], Path | None]


def no_source(_: BuildRecord) -> Path | None:
    """No build has a source."""
    return None


CachesOf = Callable[[BuildRecord], "CacheShelf | None"]


def no_caches(_: BuildRecord) -> None:
    """No build has a cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """The limits of one engine."""

    limits: Limits = field(default_factory=Limits)
    each: Mapping[str, int] = field(default_factory=dict)  # instances, by provider
    log_bytes: int = 64 << 20
    artifact_bytes: int = 2 << 30

    @property
    def rooms(self) -> Capacity:
        """Return the number of VMs that may be at once."""
        return Capacity(overall=self.limits.max_instances, each=self.each)


@dataclass(kw_only=True, slots=True)
class WorkContext:
    """Parts that a reaper works with. `clock` is this host's, for builds and leases; what concerns
    an instance is timed by its provider's clock. A new configuration replaces `providers` and
    `limits`, each at once and whole: other threads see the old or the new one."""

    ledger: Ledger
    providers: Mapping[str, Provider]
    limits: EngineLimits
    paths: EnginePaths
    reap_threads: Callable[
        [str], WorkerPool
    ]  # by provider name, so that one never waits for another
    wake: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def provider_of(self, instance: Instance) -> Provider | None:
        """The provider that may act on this instance, its very scope verified: the one of its
        name, or any where that has not its scope, as after a renaming, or after its name was given
        to another account. That one is none of our business."""
        scope, named = instance.scope, self.providers.get(instance.provider)
        own = None if named is None else self._driver_at(named, scope)
        if own is not None:  # next to always, and asked of each row in each tick
            return own
        others = (self.providers[name] for name in self._names(instance))
        found = (self._driver_at(provider, scope) for provider in others)
        return next((driver for driver in found if driver is not None), None)

    def _driver_at(self, provider: Provider, scope: Scope) -> Provider | None:
        """The one driver of a provider that has this scope."""
        own, before = drivers_of(provider)
        if before and any(scope in self.scopes_of(driver) for driver in before):
            return None
        for driver in own:  # no generator: asked of each row in each tick
            if scope in self.scopes_of(driver):
                return driver
        return None

    def all_scopes(self, provider: Provider) -> frozenset[Scope]:
        """The scopes of all drivers of a provider."""
        own, before = (map(self.scopes_of, drivers) for drivers in drivers_of(provider))
        return frozenset().union(*own) - frozenset().union(*before)

    def scopes_of(self, driver: Provider) -> frozenset[Scope]:
        """The scopes of a driver. That may be a call to a cloud."""
        return driver.scopes

    def reached(
        self, instances: Iterable[Instance], scopes: dict[str, frozenset[Scope]] | None = None
    ) -> list[Instance]:
        """Return the instances that `provider_of` has a provider for, each under the name of that
        one here. A provider is asked once about its scopes, and only where one may be of it: that
        may be a call to a cloud. `scopes`: what is known of that, to which is added."""
        scopes = {} if scopes is None else scopes
        found = []
        for row in instances:
            for name in self._names(row):
                if name not in scopes:
                    scopes[name] = self.all_scopes(self.providers[name])
                if row.scope in scopes[name]:
                    found.append(row if name == row.provider else replace(row, provider=name))
                    break
        return found

    def _names(self, instance: Instance) -> list[str]:
        """The providers that may have it, its own name's first."""
        return sorted(self.providers, key=lambda name: name != instance.provider)

    def place_of(self, provider: str) -> str:
        """The place of a provider's pools (`model.PoolPlace`): the scope of this host, where its
        VMs are bound to that and no other host reaches them; else ""."""
        driver = present(self.providers[provider])
        scopes = self.scopes_of(driver) if driver is not None else frozenset()
        bound = [str(scope) for scope in scopes if registry.is_host_bound(scope.kind)]
        return bound[0] if len(bound) == 1 else ""

    def channel_to(self, instance: Instance) -> Channel:
        """The channel to its sshd. Raises `ProviderError` where its provider cannot be asked."""
        return registry.channel(instance.scope.kind, lambda: self._asked(instance))

    def box_of(self, instance: Instance) -> Box:
        """The box that realises the container's image in it. Raises `ProviderError`, as before."""
        return registry.box(instance.scope.kind, lambda: self._asked(instance))

    def _asked(self, instance: Instance) -> Provider:
        found = self.provider_of(instance)
        if found is None:
            raise Refused(f"{instance.scope} is no scope of a provider here")
        return found

    def now(self, instance: Instance) -> float:
        """The present time on the instance's clock: that of the provider that has its scope. Where
        that is unknown for now, the earliest of its name: nothing dies too soon."""
        provider = self.provider_of(instance)
        if provider is not None:
            return provider.now()
        named = self.providers.get(instance.provider)
        if named is None:
            return self.clock()
        return min(part.now() for part in parts(instance.provider, named).values())

    def timed(self, instances: Iterable[Instance]) -> list[tuple[float, list[Instance]]]:
        """Return the instances by provider name and scope, and so by clock, each with its time."""
        groups: dict[tuple[str, Scope], list[Instance]] = {}
        for row in instances:
            groups.setdefault((row.provider, row.scope), []).append(row)
        return [(self.now(rows[0]), rows) for rows in groups.values()]

    @contextlib.contextmanager
    def guard(self, doing: str, build: str | None = None) -> Iterator[None]:
        """Log what goes wrong inside: it concerns one build or provider and never ends the tick. It
        is also noted in the build's events. A ledger that is out of reach ends it, since nothing
        can be decided without one."""
        try:
            yield
        except LedgerError:
            raise
        except Exception as error:
            expected = isinstance(error, VmrunnerError)
            log.log(
                logging.WARNING if expected else logging.ERROR,
                "%s%s: %s",
                doing,
                f" {build}" if build else "",
                error,
                exc_info=not expected,
            )
            if build is not None:
                with contextlib.suppress(VmrunnerError):
                    text = str(error)[:300]
                    self.ledger.events.add(
                        build, EventKind.TROUBLE, self.clock(), doing=doing, error=text
                    )


class _DriverScopes(NamedTuple):
    driver: Provider  # so that no other object gets its id
    scopes: frozenset[Scope]
    tick: int  # that asked last
    at: float  # monotonic, of that tick


@dataclass(kw_only=True, slots=True)
class EngineContext(WorkContext):
    """Parts that every part of an engine works with: also what it launches with."""

    id: str
    orders: MakesOrders
    create_threads: Callable[[str], WorkerPool]
    #: For VMs that exist: their changes wait behind no creates.
    change_threads: Callable[[str], WorkerPool]
    delete_threads: Callable[[str], WorkerPool]
    pools: Mapping[str, PoolSpec] = field(default_factory=dict)  # to fill, by name
    #: None: those of a serving process hold, not this process's own.
    budgets: Sequence[Budget] | None = None
    #: A build's packed source, of which the hash was checked. Raises StoreError.
    source_of: SourceOf = no_source
    #: The caches that a build may have.
    caches_of: CachesOf = no_caches
    #: Of a provider, by its name: what the tick asks it.
    answers: Callable[[str], ProviderAnswers]
    _declared: Sequence[Budget] | None = None
    _ticks_in: int | None = None  # the thread of the tick that runs
    _ticks: int = 0
    _scopes: dict[int, _DriverScopes] = field(default_factory=dict)  # by driver's id
    _quotes: dict[Scope, Mapping[str, Price]] = field(default_factory=dict)  # read in this tick

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Let a tick run in this thread: in it nothing waits for a cloud."""
        self._ticks += 1
        unused = self._ticks - SCOPES_KEPT
        self._quotes = {}
        self._scopes = {name: entry for name, entry in self._scopes.items() if entry.tick > unused}
        self._ticks_in = threading.get_ident()
        try:
            yield
        finally:
            self._ticks_in = None

    def scopes_of(self, driver: Provider) -> frozenset[Scope]:
        """The scopes of a driver; in a tick its last answer, where it takes long or fails.
        Elsewhere those of a recent tick, or it is asked."""
        cached = self._scopes.get(id(driver))
        if threading.get_ident() != self._ticks_in:
            if cached is not None and cached.scopes and self.monotonic() <= cached.at + HOLDS:
                return cached.scopes
            return driver.scopes
        if cached is None or cached.tick != self._ticks:
            scopes: frozenset[Scope] = frozenset() if cached is None else cached.scopes
            with contextlib.suppress(ProviderError):
                key = "scopes", id(driver)
                scopes = self.answers(driver.name).ask(key, lambda: driver.scopes)
            cached = _DriverScopes(driver, scopes, self._ticks, self.monotonic())
            self._scopes[id(driver)] = cached
        return cached.scopes

    def declare_budgets(self) -> None:
        """Write the budgets of our configuration to the ledger, once."""
        if self.budgets is not None and self._declared is not self.budgets:
            self.ledger.budgets.declare(self.budgets, self.clock())
        self._declared = self.budgets

    def rate(self, provider: str, offer: Offer, role: Role) -> Rate:
        """The rate of a VM of this offer in this role, as far as the ledger and the driver know; no
        cloud is asked. A tick reads the ledger's prices of a place once."""
        if threading.get_ident() != self._ticks_in:
            quoted: Mapping[str, Price] = self.ledger.prices.of(offer.scope)
        elif offer.scope in self._quotes:
            quoted = self._quotes[offer.scope]
        else:
            quoted = self._quotes[offer.scope] = self.ledger.prices.of(offer.scope)
        return rate_of(self.providers[provider], offer, role, quoted, self.clock())
