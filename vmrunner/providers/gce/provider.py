"""The port, for one project in Compute Engine: it launches in the configured zones, and minds all
it ever used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import requests
from google.auth import exceptions as auth_errors

from vmrunner.errors import BadOrder, Uncertain
from vmrunner.model import (
    Bill,
    Fate,
    Finding,
    Key,
    Kind,
    Level,
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
from vmrunner.providers.common.call_failed import edge
from vmrunner.providers.common.capacity_pools import DryPools, markets, walk
from vmrunner.providers.common.clock import CloudClock, boottime
from vmrunner.providers.common.console import CONSOLE_BYTES
from vmrunner.providers.common.machine_types import fitting, none_fits
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.gce import doctor, guard, price_list, prices
from vmrunner.providers.gce.catalog import GceCatalog
from vmrunner.providers.gce.client import CONSOLE, GceClient
from vmrunner.providers.gce.create import GceCreator
from vmrunner.providers.gce.create_request import disk_type_of
from vmrunner.providers.gce.delete import GceDeleter
from vmrunner.providers.gce.describe import InstanceDescriber
from vmrunner.providers.gce.identity import GceIdentity
from vmrunner.providers.gce.images import GceImages
from vmrunner.providers.gce.operations import OperationWaiter
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.parking import GceParker
from vmrunner.providers.gce.permissions import GcePermissions
from vmrunner.providers.gce.resources import GceNearness, last
from vmrunner.providers.gce.sweep import GceSweep

KIND: Final = "gce"
#: Creates at once: each waits for its operation, which takes seconds and no work.
CREATES: Final = 64


class GceProvider:
    """The port for Compute Engine. Every method may be called from any thread. Nothing is asked
    before the first call."""

    creates = CREATES

    def __init__(
        self,
        options: GceOptions,
        *,
        buckets: Buckets | None = None,
        elapsed: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`elapsed`, `sleep` and the clock of `buckets` are for tests with a virtual one."""
        options.check()
        self.options = options
        self.clock = CloudClock(elapsed=elapsed)
        self.client = GceClient(options, self.clock, buckets=buckets)
        self.identity = GceIdentity(self.client, elapsed)
        self.catalog = GceCatalog(options, self.client, elapsed)
        self.permissions = GcePermissions(options.name, self.client, elapsed)
        self._dry = DryPools(elapsed)
        self._elapsed = elapsed
        self._waiter = OperationWaiter(self.client, elapsed, sleep)
        self._creator = GceCreator(options, self.client, self._dry, self.now, self._waiter)
        self._parker = GceParker(self.client, self._waiter)
        public = options.address == "public"
        self._looker = InstanceDescriber(self.client, options.installation, public=public)

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def scopes(self) -> frozenset[Scope]:
        """The zones of the project, once it is known that we are let in."""
        return frozenset(self._zones if self.identity.quietly() is not None else ())

    def now(self) -> float:
        return self.clock.now()

    # --- what can be had ---

    def offers(self, spec: Spec) -> Sequence[Offer]:
        options = self.options
        options.demand_launch()
        wanted = markets(options.spot, wanted=spec.spot, name=self.name)
        with edge():
            project = self.identity.project()
            self.permissions.demand()
            image = self.catalog.image(spec.image)
            disk = options.disk_size(spec.disk, image.name, image.size)
            fits = {
                zone: fitting(self.catalog.types(zone), spec, image.architecture)
                for zone in options.zones
            }
        if not any(fits.values()):
            raise none_fits(self.name, options.machine_types, options.zones, spec)
        pools = walk(wanted, options.machine_types, options.zones)
        pools_left = self._dry.without_dry(
            [pool for pool in pools if pool.machine_type in fits[pool.place]]
        )
        return tuple(
            fits[pool.place][pool.machine_type].offer(
                pool, Scope(KIND, project, pool.place), disk=disk, image=image.id
            )
            for pool in pools_left
        )

    @property
    def holds_no_network(self) -> bool:
        return bool(self.options.network_tags_none)

    def bill(self, offer: Offer, role: Role) -> Bill:  # noqa: ARG002 - the same for each
        disk_type = self.options.disk_type or disk_type_of(offer.machine_type)
        return prices.bill(offer, disk_type, public=self.options.address == "public")

    def told_prices(self) -> Mapping[Scope, Mapping[str, float]]:
        with edge():
            project, zones = self.identity.project(), self.options.zones
            types = {zone: self.catalog.types(zone) for zone in zones}
        prices_by_zone = price_list.fetch(self.options, types)
        return {Scope(KIND, project, zone): found for zone, found in prices_by_zone.items()}

    # --- birth ---

    def create(self, order: Order) -> Ref:
        self.options.demand_launch()
        with edge():
            self.identity.project()
            self._check_scope(order.offer.scope)
            self.permissions.demand()
            ref = self._creator.create(order)
            self.permissions.born(ref)
            return ref

    # --- life and death: whether we are let in, each answer tells, and no question before it ---

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        with edge():
            return self._looker.look([key for key in ids if key.scope in self._zones])

    def sweep(self) -> Iterator[Page]:
        sweep = GceSweep(
            client=self.client,
            scopes=self._zones,
            near=self._near(),
            now=self.now,
            elapsed=self._elapsed,
        )
        yield from sweep.pages()

    def delete(
        self,
        refs: Sequence[Ref],
        *,
        force: bool = False,  # noqa: ARG002 - none here waits for a guest, or heeds a protection
    ) -> Mapping[Ref, Outcome]:
        project = self.options.project
        own = [ref for ref in refs if (ref.scope.kind, ref.scope.account) == (KIND, project)]
        outcomes = GceDeleter(self.client).delete(own)
        for ref in refs:
            error = f"{ref.scope} is not reached by these credentials"
            outcomes.setdefault(ref, Outcome(fate=Fate.FAILED, error=error))
        return outcomes

    def console(self, ref: Ref) -> str:
        if ref.scope not in self.scopes or ref.kind is not Kind.INSTANCE:
            return ""
        with edge():
            answer = self.client(CONSOLE, zone=ref.scope.place, instance=ref.id)
        return str(answer.contents)[-CONSOLE_BYTES:]

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
            project = self.identity.project()
        try:
            return guard.roles(self.options, project, self.clock)
        except (auth_errors.GoogleAuthError, requests.RequestException, ValueError) as error:
            raise Uncertain(f"the guard's roles: {error}") from error

    def check(self) -> Sequence[Finding]:
        return doctor.check(self)

    def imaging(self, scope: Scope | None = None) -> GceImages:  # noqa: ARG002
        """The images that this installation made. They have no zone."""
        return GceImages(self.options, self.client, self.identity, self._waiter)

    def unguarded(self) -> Sequence[Finding]:
        with edge():
            found = guard.findings(self.options, self.identity.project(), self.clock)
            return tuple(finding for finding in found if finding.level is not Level.OK)

    # --- within ---

    def _check_scope(self, scope: Scope) -> None:
        if scope not in self._zones:
            raise BadOrder(f"{scope} is no scope of {self.name}")

    def _near(self) -> GceNearness:
        options = self.options
        if options.subnetwork:
            return GceNearness(
                subnetwork=last(options.subnetwork), tags=frozenset(options.network_tags)
            )
        return GceNearness(network=last(options.network), tags=frozenset(options.network_tags))

    @property
    def _zones(self) -> list[Scope]:
        """Scopes of all zones. A project's id never changes, so no call is needed."""
        project = str(self.options.project)
        return [Scope(KIND, project, zone) for zone in self.options.every_zone]
