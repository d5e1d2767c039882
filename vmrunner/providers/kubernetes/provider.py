"""The port, for one namespace of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from vmrunner.core.boxes import Box
from vmrunner.errors import BadOrder, NoCapacity, ProviderError, Throttled
from vmrunner.model import (
    ContainerEnd,
    Fate,
    Finding,
    Key,
    Kind,
    Market,
    Network,
    NetworkPolicy,
    Offer,
    Order,
    Outcome,
    Page,
    Power,
    Ref,
    Scope,
    Seen,
    Spec,
)
from vmrunner.providers.common.call_failed import CallFailed, edge, tolerated
from vmrunner.providers.common.capacity_pools import DryPools, walk
from vmrunner.providers.common.clock import CloudClock, boottime
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.kubernetes import console, doctor, error_codes
from vmrunner.providers.kubernetes.box import PodBox
from vmrunner.providers.kubernetes.client import PODS, KubeClient
from vmrunner.providers.kubernetes.create import KubeCreator
from vmrunner.providers.kubernetes.deadlines import DeadlineLowerer
from vmrunner.providers.kubernetes.delete import KubeDeleter
from vmrunner.providers.kubernetes.describe import KINDS_OF, SINGLY, KubeDescriber
from vmrunner.providers.kubernetes.identity import NamespaceIdentity
from vmrunner.providers.kubernetes.labels import instance_id, split
from vmrunner.providers.kubernetes.options import DISK, KubernetesOptions, Size
from vmrunner.providers.kubernetes.permissions import KubePermissions
from vmrunner.providers.kubernetes.probes import POLL, UNKNOWN, KubeProbes
from vmrunner.providers.kubernetes.states import container_end
from vmrunner.providers.kubernetes.sweep import KubeSweep
from vmrunner.providers.port import LookPace

#: Creates at once: each is a few quick calls.
CREATES: Final = 32
#: Pauses between looks at a few pods that are being started, in seconds, within one call of `look`:
#: together longer than `look_every.fresh`, so that the next call follows at once. For so long after
#: their birth: who pulls an image takes longer.
STARTING: Final = (0.05, 0.1, 0.1, 0.1, 0.1, 0.1)
STARTS_WITHIN: Final = 10.0


def opened(options: KubernetesOptions, **clocks: Any) -> KubernetesProvider:
    """The provider of these options. `clocks`: as of `KubernetesProvider`."""
    kind = PodProvider if options.runs == "pod" else KubernetesProvider
    return kind(options, **clocks)


class KubernetesProvider:
    """The port for VMs of KubeVirt. Every method may be called from any thread. Nothing is asked
    before the first call."""

    creates = CREATES
    #: One list tells of all.
    look_every = LookPace(fresh=0.5, changing=2.0, steady=10.0)

    def __init__(
        self,
        options: KubernetesOptions,
        *,
        buckets: Buckets | None = None,
        elapsed: Callable[[], float] = boottime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`elapsed`, `sleep` and the clock of `buckets` are for tests with a virtual one."""
        options.check()
        self.options = options
        self._sleep = sleep
        self._elapsed = elapsed
        self.clock = CloudClock(elapsed=elapsed)
        self.client = KubeClient(options, self.clock, buckets=buckets)
        self.identity = NamespaceIdentity(self.client, options.namespace, elapsed)
        self.permissions = KubePermissions(options, self.client, elapsed)
        self.probes = KubeProbes(
            options, self.client, self.identity, self.now, sleep=sleep, elapsed=elapsed
        )
        kinds = KINDS_OF[options.runs]
        self._dry = DryPools(elapsed)
        self._creator = KubeCreator(options, self.client, self._dry, self.now)
        self._deleter = KubeDeleter(self.client, kinds, self.now)
        self._lowerer = DeadlineLowerer(self.client, self.now)
        self._looker = KubeDescriber(
            self.client, self.identity, options.installation, kinds, self.now
        )

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def scopes(self) -> frozenset[Scope]:
        """The namespace, once it is known which one it is."""
        scope = self.identity.quietly()
        return frozenset(() if scope is None else (scope,))

    def now(self) -> float:
        return self.clock.now()

    # --- what can be had ---

    def offers(self, spec: Spec) -> Sequence[Offer]:
        options = self.options
        options.demand_launch()
        if spec.spot:
            raise BadOrder(
                f"spot: {self.name} has no such market", hint="leave --spot out, or set tolerations"
            )
        if spec.image is not None:
            raise BadOrder(
                f"image: {spec.image}: the VM's image is that of the configuration",
                hint=f"leave it out, or configure providers.{self.name}.image",
            )
        disk = self._disk(spec.disk)
        self._check_network(spec.network)
        with edge():
            self.permissions.demand()
            scope = self.identity.scope()
        fits = {size.name: size for size in options.machine_sizes if _fits(size, spec)}
        if not fits:
            raise BadOrder(
                f"providers.{self.name}.sizes: none of {', '.join(options.sizes)} has cpus = "
                f"{spec.cpus or 'any'}, memory = {spec.memory or 'any'}",
                hint=f"add such a size to providers.{self.name}.sizes, or ask for less",
            )
        pools = list(walk((Market.ON_DEMAND,), list(fits), (options.namespace,)))
        return tuple(
            Offer(
                scope=scope,
                machine_type=pool.machine_type,
                place=pool.place,
                cpus=fits[pool.machine_type].cpus,
                memory=fits[pool.machine_type].memory,
                disk=disk,
                image=options.image_name,
                usd_hour=options.usd_hour.get(pool.machine_type, 0.0),
            )
            for pool in self._dry.without_dry(pools)
        )

    @property
    def holds_no_network(self) -> bool:
        return self.probes.network().shown is True

    # --- birth ---

    def create(self, order: Order) -> Ref:
        self.options.demand_launch()
        self._check_network(order.network)
        with edge():
            if order.offer.scope != self.identity.scope():
                raise BadOrder(f"{order.offer.scope} is no scope of {self.name}")
            self.permissions.demand()
            return self._creator.create(order)

    # --- life and death ---

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        with edge():
            return self._looker.look(ids)

    def sweep(self) -> Iterator[Page]:
        sweep = KubeSweep(client=self.client, identity=self.identity, now=self.now)
        yield from sweep.pages()

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        outcomes: dict[Ref, Outcome] = {}
        try:
            scope = self.identity.scope() if refs else None
        except CallFailed as failed:
            return {ref: Outcome(fate=Fate.FAILED, error=str(failed)) for ref in refs}
        own = [ref for ref in refs if ref.scope == scope]
        outcomes |= self._deleter.delete(own, force=force)
        for ref in refs:
            error = f"{ref.scope} is not reached by these credentials"
            outcomes.setdefault(ref, Outcome(fate=Fate.FAILED, error=error))
        return outcomes

    def lower(self, ref: Ref, due: float) -> None:
        with edge():
            if ref.scope != self.identity.scope():
                raise BadOrder(f"{ref.scope} is no scope of {self.name}")
            self._lowerer.lower(ref, due)

    def console(self, ref: Ref) -> str:
        if ref.scope not in self.scopes or ref.kind is not Kind.INSTANCE:
            return ""
        with edge():
            return console.read(self.client, ref)

    def check(self) -> Sequence[Finding]:
        return doctor.check(self)

    # --- within ---

    def _check_network(self, network: NetworkPolicy) -> None:
        """A VM's container is held to it inside of the VM. Raises what `create` does."""

    def _disk(self, wanted: int | None) -> int:
        """Bytes of an instance's disk. Raises `BadOrder`."""
        options = self.options
        has = options.disk or (DISK if options.runs == "pod" else 0)
        if wanted is not None and wanted > has:
            raise BadOrder(
                f"disk: {wanted} bytes: what {self.name} starts has {has or 'its image alone'}",
                hint=f"ask for less, or raise providers.{self.name}.disk",
            )
        return has


class PodProvider(KubernetesProvider):
    """The port for pods: the cluster starts the build's image itself (`StartsUnits`)."""

    @property
    def box(self) -> Box:
        return PodBox(probed=self.options.network_policy == "probe")

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        """Look at them; at a few that are all being started, until one is another, for a moment.
        What the first look saw is lost by no later one, and a slow API is asked no more."""
        seen = dict(super().look(ids))
        until = self._elapsed() + sum(STARTING)
        for pause in STARTING if 0 < len(ids) <= SINGLY else ():
            if not all(map(self._is_starting, seen.values())) or self._elapsed() >= until:
                break
            self._sleep(pause)
            try:
                seen |= super().look(ids)
            except ProviderError:
                break
        return seen

    def ended(self, ref: Ref) -> ContainerEnd | None:
        """End of the build's container, as its node saw it; None: it is not known."""
        name, _ = split(ref.id)
        with edge():
            if ref.scope != self.identity.scope():
                return None
            with tolerated(error_codes.MISSING):
                pod = self.client.get(PODS, name)
                return container_end(pod) if instance_id(pod["metadata"]) == ref.id else None
            return None

    def _is_starting(self, seen: Seen) -> bool:
        since = seen.created_at
        young = since is not None and self.now() - since < STARTS_WITHIN
        return young and seen.power is Power.PENDING and seen.unfit is None

    def _check_network(self, network: NetworkPolicy) -> None:
        """Raises, for `none`, `BadOrder` where a probe saw no policy hold, `Throttled` while the
        first one runs, `NoCapacity` where it could not."""
        if network is not Network.NONE:
            return
        verdict = self.probes.network()
        if verdict is UNKNOWN:
            text = f"network: none: {self.name} is probed first, by pods that take a moment"
            raise Throttled(text, wait=POLL)
        if verdict.shown is None:
            raise NoCapacity(f"network: none: {self.name} could not be probed: {verdict.words}")
        if not verdict.shown:
            raise BadOrder(
                f"network: none: {self.name} cannot keep that: {verdict.words}",
                hint="apply deploy/kubernetes/network.yaml with a plugin that keeps policies, or "
                "leave it out",
            )


def _fits(size: Size, spec: Spec) -> bool:
    return size.cpus >= (spec.cpus or 0) and size.memory >= (spec.memory or 0)
