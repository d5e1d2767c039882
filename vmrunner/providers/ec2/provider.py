"""The port, for one account in EC2: it launches in one region, and minds all it ever used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from vmrunner.errors import BadOrder, Uncertain
from vmrunner.model import (
    Bill,
    Fate,
    Finding,
    Key,
    Network,
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
from vmrunner.providers.common.call_failed import CallFailed, edge
from vmrunner.providers.common.capacity_pools import DryPools, markets, walk
from vmrunner.providers.common.clock import CloudClock, boottime
from vmrunner.providers.common.console import CONSOLE_BYTES
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.ec2 import deadline_schedules, doctor, parking, price_list, prices
from vmrunner.providers.ec2.catalog import Ec2Catalog, some_fitting
from vmrunner.providers.ec2.client import CONSOLE, Ec2Client
from vmrunner.providers.ec2.create import Ec2Creator
from vmrunner.providers.ec2.delete import Ec2Deleter
from vmrunner.providers.ec2.describe import look
from vmrunner.providers.ec2.guard.account import AccountGuard
from vmrunner.providers.ec2.identity import Ec2Identity
from vmrunner.providers.ec2.images import Ec2Images
from vmrunner.providers.ec2.isolation import ways_out
from vmrunner.providers.ec2.metadata_service import MetadataService
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.ec2.permissions import Ec2Permissions
from vmrunner.providers.ec2.resources import READERS, Ec2Nearness
from vmrunner.providers.ec2.sweep import Ec2SweepContext

KIND: Final = "ec2"
#: Only of Nitro machines is the console read when it is asked for.
_NOT_NITRO: Final = "UnsupportedOperation"


class Ec2Provider:
    """The port for EC2. Every method may be called from any thread. Nothing is asked before the
    first call."""

    creates = 8

    def __init__(
        self,
        options: Ec2Options,
        *,
        buckets: Buckets | None = None,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        """`elapsed`, in seconds, and the clock of `buckets` are for tests with a virtual one."""
        options.check()
        self.options = options
        self.clock = CloudClock(elapsed=elapsed)
        self.client = Ec2Client(options, self.clock, buckets=buckets)
        self.identity = Ec2Identity(self.client, options.regions, elapsed)
        self.catalog = Ec2Catalog(options, self.client, elapsed)
        self.permissions = Ec2Permissions(options, self.client, self.identity, elapsed)
        self._elapsed = elapsed
        self._dry = DryPools(elapsed)
        self._metadata_service = MetadataService(self.client)
        listed = (deadline_schedules.reader(options),) if options.scheduler_role else ()
        self._readers = (*READERS, *listed)
        self._creator = Ec2Creator(options, self.client, self.catalog, self._dry)
        if options.scheduler_role:  # only then it is a provider that arms
            self.arm = self._arm

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def scopes(self) -> frozenset[Scope]:
        """Scopes of the account that these credentials are for right now; none while that is
        unknown."""
        account = self.identity.quietly()
        return frozenset(self._scopes(account) if account is not None else ())

    def now(self) -> float:
        return self.clock.now()

    # --- what can be had ---

    def offers(self, spec: Spec) -> Sequence[Offer]:
        options = self.options
        options.demand_launch()
        wanted = markets(options.spot, wanted=spec.spot, name=self.name)
        with edge():
            scope = self._scope()
            self.permissions.demand()
            image = self.catalog.image(spec.image)
            disk = options.disk_size(spec.disk, image.name or image.id, image.size)
            types = some_fitting(self.catalog.types(), image, spec)
            subnets = list(self.catalog.subnets(spec.network))
            groups = self.catalog.groups(spec.network)
        if spec.network is Network.NONE and self.holds_no_network:
            for way in ways_out(groups):
                raise BadOrder(way.message, hint=way.fix)
        return tuple(
            types[pool.machine_type].offer(pool, scope, disk=disk, image=image.id)
            for pool in self._dry.without_dry(list(walk(wanted, list(types), subnets)))
        )

    @property
    def holds_no_network(self) -> bool:
        return bool(self.options.security_groups_none)

    def bill(self, offer: Offer, role: Role) -> Bill:  # noqa: ARG002 - the same for each
        return prices.bill(offer, public=self.options.address == "public")

    def told_prices(self) -> Mapping[Scope, Mapping[str, float]]:
        with edge():
            types, region = self.options.instance_types, self.options.region
            return {self._scope(): price_list.fetch(self.client, region, types, self.now())}

    # --- birth ---

    def create(self, order: Order) -> Ref:
        self.options.demand_launch()
        with edge():
            if order.offer.scope != self._scope():
                raise BadOrder(f"the offer is of {order.offer.scope}, this is {self._scope()}")
            self.permissions.demand()
            ref = self._creator.create(order)
            self.permissions.born(ref.id)
            return ref

    def _arm(self, ref: Ref, instance: str, deadline: float) -> Ref:
        with edge():
            self._check_reach(ref)
            partition = self.identity.caller().partition
            return deadline_schedules.arm(
                self.client, self.options, partition, ref, instance, deadline
            )

    def seal(self, ref: Ref) -> None:
        with edge():
            self._check_reach(ref)
            self._metadata_service.switch_off(ref)

    def park(self, ref: Ref) -> None:
        with edge():
            self._check_reach(ref)
            parking.park(self.client, ref)

    def wake(self, ref: Ref) -> None:
        with edge():
            self._check_reach(ref)
            parking.wake(self.client, ref)

    # --- life and death ---

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        with edge():
            own_scopes = set(self._scopes(self.identity.account()))
            own_keys = [key for key in ids if key.scope in own_scopes]
            public = self.options.address == "public"
            found = look(self.client, own_keys, self.options.installation, public=public)
            self._same(own_scopes)
            return found

    def sweep(self) -> Iterator[Page]:
        with edge():
            account = self.identity.account()
        scopes = self._scopes(account)
        sweeping = Ec2SweepContext(
            client=self.client,
            readers=self._readers,
            installation=self.options.installation,
            near=self._near(),
            now=self.now,
            elapsed=self._elapsed,
        )
        for page in sweeping.sweep(scopes):
            # What another account shows says nothing of this one.
            if self.identity.quietly() != account:
                error = "the credentials are another account's now"
                yield Page(scope=page.scope, kind=page.kind, error=error, time=self.now())
            else:
                yield page

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        outcomes: dict[Ref, Outcome] = {}
        scopes = self.scopes
        for scope in dict.fromkeys(ref.scope for ref in refs):
            own = [ref for ref in refs if ref.scope == scope]
            if scope in scopes:
                outcomes |= Ec2Deleter(self.client, scope.place, self.now).delete(own, force=force)
            else:
                error = f"{scope} is not reached by these credentials"
                outcomes |= dict.fromkeys(own, Outcome(fate=Fate.FAILED, error=error))
        return outcomes

    def console(self, ref: Ref) -> str:
        if ref.scope not in self.scopes:
            return ""
        with edge():
            try:  # what is there now, not what was there after the last change of state
                answer = self.client(ref.scope.place, CONSOLE, InstanceId=ref.id, Latest=True)
            except CallFailed as failed:
                if failed.code != _NOT_NITRO:
                    raise
                answer = self.client(ref.scope.place, CONSOLE, InstanceId=ref.id)
        return str(answer.get("Output", ""))[-CONSOLE_BYTES:]

    def check(self) -> Sequence[Finding]:
        return doctor.check(self)

    def guard(self) -> AccountGuard:
        """Return the guard that lives in the account, and needs nothing of vmrunner's."""
        return AccountGuard(self.options, self.client, self.identity, self.now)

    def guarded_roles(self) -> frozenset[str] | None:
        return self.guard().roles()

    def imaging(self, scope: Scope | None = None) -> Ec2Images:
        """The images that this installation made, where it launches or in another region."""
        options = self.options if scope is None else replace(self.options, region=scope.place)
        return Ec2Images(options, self.client, self.identity)

    def unguarded(self) -> Sequence[Finding]:
        with edge():
            return tuple(doctor.unguarded(self))

    # --- within ---

    def _scope(self) -> Scope:
        return Scope(KIND, self.identity.caller().account, self.options.region)

    def _scopes(self, account: str) -> list[Scope]:
        return [Scope(KIND, account, region) for region in self.options.regions]

    def _same(self, scopes: set[Scope]) -> None:
        if set(self._scopes(self.identity.account())) != scopes:
            raise Uncertain("the credentials changed to another account's meanwhile")

    def _check_reach(self, ref: Ref) -> None:
        """Raises `Uncertain` when this is another's account by now."""
        if ref.scope not in self._scopes(self.identity.account()):
            raise Uncertain(f"{ref.scope} is not reached by these credentials")

    def _near(self) -> Ec2Nearness:
        image = self.options.image
        images = frozenset({image} if isinstance(image, str) else ())
        options = self.options
        groups = {*options.security_groups, *options.security_groups_none}
        return Ec2Nearness(images, frozenset(groups))
