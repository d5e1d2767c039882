"""The port, for one subscription's resource group: it launches in one location, and minds all
groups that it ever used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from vmrunner.errors import BadOrder
from vmrunner.model import (
    Bill,
    Fate,
    Finding,
    Key,
    Kind,
    Offer,
    Order,
    Outcome,
    Page,
    Ref,
    Role,
    Scope,
    Seen,
    Spec,
)
from vmrunner.providers.azure import console, deadline_schedules, doctor, guard, price_list, prices
from vmrunner.providers.azure.boots import ManagedBoots
from vmrunner.providers.azure.catalog import AzureCatalog, placement
from vmrunner.providers.azure.client import CONSOLE, AzureClient
from vmrunner.providers.azure.create import AzureCreator
from vmrunner.providers.azure.delete import AzureDeleter
from vmrunner.providers.azure.describe import VmDescriber
from vmrunner.providers.azure.identity import AzureIdentity
from vmrunner.providers.azure.images import AzureImages
from vmrunner.providers.azure.operations import AzureWaiter
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.parking import AzureParker
from vmrunner.providers.azure.permissions import AzurePermissions
from vmrunner.providers.azure.quotas import AzureQuotas
from vmrunner.providers.azure.sweep import sweep
from vmrunner.providers.common.call_failed import edge
from vmrunner.providers.common.capacity_pools import DryPools, markets, walk
from vmrunner.providers.common.clock import CloudClock, boottime
from vmrunner.providers.common.machine_types import fitting, none_fits
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.port import LookPace

KIND: Final = "azure"
#: Creates at once: each waits until its VM has a place, which takes seconds and no work.
CREATES: Final = 64
#: Azure lets one VM be looked at 36 times at once and then 12 times a minute ("Compute throttling
#: limits"): a look every two seconds of a boot, and half that rate for what just goes on.
PACE: Final = LookPace(fresh=2.0, changing=5.0, steady=10.0)


class AzureProvider:
    """The port for Azure's virtual machines. Every method may be called from any thread. Nothing
    is asked before the first call."""

    creates = CREATES
    look_every = PACE

    def __init__(
        self,
        options: AzureOptions,
        *,
        buckets: Buckets | None = None,
        elapsed: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`elapsed`, `sleep` and the clock of `buckets` are for tests with a virtual one."""
        options.check()
        self.options = options
        self.clock = CloudClock(elapsed=elapsed)
        self.client = AzureClient(options, self.clock, buckets=buckets)
        self.identity = AzureIdentity(options, self.client, elapsed)
        self.catalog = AzureCatalog(options, self.client, elapsed)
        self.quotas = AzureQuotas(options, self.client, elapsed)
        self.permissions = AzurePermissions(options, self.client, elapsed)
        self._dry = DryPools(elapsed)
        self._waiter = AzureWaiter(self.client, elapsed, sleep)
        boots = ManagedBoots(elapsed)
        self._creator = AzureCreator(
            options, self.client, self.catalog, self._dry, self._waiter, self.quotas, boots
        )
        self._parker = AzureParker(self.client, self._waiter)
        public = options.address == "public"
        self._looker = VmDescriber(
            self.client, options.installation, public=public, booted=boots.end, elapsed=elapsed
        )

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def scopes(self) -> frozenset[Scope]:
        """The groups of the subscription, once it is known that we are let in."""
        return frozenset(self._groups if self.identity.quietly() is not None else ())

    def now(self) -> float:
        return self.clock.now()

    # --- what can be had ---

    def offers(self, spec: Spec) -> Sequence[Offer]:
        options = self.options
        options.demand_launch()
        wanted = markets(options.spot, wanted=spec.spot, name=self.name)
        with edge():
            self.identity.group()
            self.permissions.demand()
            image = self.catalog.image(spec.image)
            disk = options.disk_size(spec.disk, image.name, image.size)
            fits = fitting(self.catalog.sizes(), spec, image.architecture)
        lacks = {name: size.refusal(image) for name, size in fits.items()}
        usable = {name: size for name, size in fits.items() if not lacks[name]}
        by_place = {options.place(zone): zone for zone in options.zones or ("",)}
        pools = [
            pool
            for pool in walk(wanted, list(usable), list(by_place))
            if usable[pool.machine_type].is_in(by_place[pool.place], pool.market)
        ]
        if not pools:
            why = "; ".join(filter(None, lacks.values()))
            raise none_fits(self.name, options.machine_types, list(by_place), spec, why)
        pools = self.quotas.fitting(pools, usable)
        return tuple(
            usable[pool.machine_type].offer(pool, self._groups[0], disk=disk, image=image.id)
            for pool in self._dry.without_dry(pools)
        )

    @property
    def holds_no_network(self) -> bool:
        return self.options.security_group_none is not None

    def bill(self, offer: Offer, role: Role) -> Bill:
        size = self.catalog.sizes_by_name.get(offer.machine_type)
        # Of a pool's VM and of an image's builder the disk is managed, whatever the options say.
        local = placement(self.options, size, offer.disk) if role is Role.BUILD else ""
        disk_type = None if local else self.options.disk_type
        return prices.bill(offer, disk_type, public=self.options.address == "public")

    def told_prices(self) -> Mapping[Scope, Mapping[str, float]]:
        self.options.demand_launch()
        with edge():
            # Their names in Azure's own case: its price list knows no other.
            names = [size.name for size in self.catalog.sizes()]
        return {self._groups[0]: price_list.fetch(self.options, names)}

    # --- birth ---

    def create(self, order: Order) -> Ref:
        self.options.demand_launch()
        with edge():
            self._check_scope(order.offer.scope)
            self.permissions.demand()
            return self._creator.create(order)

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:  # noqa: ARG002 - its name
        with edge():
            self._check_scope(ref.scope)
            return deadline_schedules.arm(self.client, self.options, ref, deadline)

    # --- life and death: whether we are let in, each answer tells, and no question before it ---

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        with edge():
            return self._looker.look([key for key in ids if key.scope in self._groups])

    def sweep(self) -> Iterator[Page]:
        return sweep(self.client, self._groups, self.options.installation, self.now)

    def delete(
        self,
        refs: Sequence[Ref],
        *,
        force: bool = False,  # noqa: ARG002 - none here waits for a guest
    ) -> Mapping[Ref, Outcome]:
        account = self._groups[0].account
        own = [ref for ref in refs if (ref.scope.kind, ref.scope.account) == (KIND, account)]
        outcomes = AzureDeleter(self.client, self._looker.ended, self.permissions.doubt).delete(own)
        for ref in refs:
            error = f"{ref.scope} is not reached by these credentials"
            outcomes.setdefault(ref, Outcome(fate=Fate.FAILED, error=error))
        return outcomes

    def console(self, ref: Ref) -> str:
        if ref.scope not in self.scopes or ref.kind is not Kind.INSTANCE:
            return ""
        with edge():
            answer = self.client(
                CONSOLE,
                group=ref.scope.place,
                vm_name=ref.id,
                sas_uri_expiration_time_in_minutes=5,
            )
        return console.read(self.options, str(answer.get("serialConsoleLogBlobUri") or ""))

    def park(self, ref: Ref) -> None:
        with edge():
            self._check_scope(ref.scope)
            self._parker.park(ref)

    def wake(self, ref: Ref) -> None:
        with edge():
            self._check_scope(ref.scope)
            self._parker.wake(ref)

    def guarded_roles(self) -> frozenset[str] | None:
        with edge():
            return guard.roles(self.options, self.client, self.now)

    def check(self) -> Sequence[Finding]:
        return doctor.check(self)

    def imaging(self, scope: Scope | None = None) -> AzureImages:
        """The images that this installation made, in the group that launches or in another."""
        options = self.options
        if scope is not None:
            options = replace(options, resource_group=scope.place)
        return AzureImages(options, self.client, self.identity, self._waiter)

    def unguarded(self) -> Sequence[Finding]:
        with edge():
            return tuple(doctor.unguarded(self))

    # --- within ---

    def _check_scope(self, scope: Scope) -> None:
        if scope not in self._groups:
            raise BadOrder(f"{scope} is no scope of {self.name}")

    @property
    def home(self) -> Scope:
        """The group that launches."""
        return self._groups[0]

    @property
    def _groups(self) -> list[Scope]:
        """Scopes of all groups. A subscription's id never changes, so no call is needed."""
        account = str(self.options.subscription).lower()
        return [Scope(KIND, account, group) for group in self.options.groups]
