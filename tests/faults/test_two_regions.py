"""Two regions of one AWS account, a provider each: each VM ends in its own region, and one that
does not answer delays nothing in the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from vmrunner_localclouds.common.faults import LOST_REQUEST
from vmrunner_localclouds.ec2 import Ec2Machine

from tests.faults.ec2_side import Ec2Side
from tests.faults.world import TTL, World
from tests.support.ec2 import REGION
from vmrunner.model import Kind, Page, Ref, Scope
from vmrunner.providers import Provider
from vmrunner.providers.ec2.provider import KIND
from vmrunner.providers.fake import Clock

FAR: Final = "us-east-1"
TIMEOUT: Final = 60.0


class Patient:
    """A provider whose listing of a dead region takes as long as a timeout."""

    def __init__(self, provider: Provider, cloud: TwoRegions) -> None:
        self._provider, self._cloud = provider, cloud

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def sweep(self) -> Iterator[Page]:
        if self._cloud.dead:
            self._cloud.amazon.clock.sleep(TIMEOUT)
        yield from self._provider.sweep()


class TwoRegions(Ec2Side):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.near, self.far = self.scope, Scope(KIND, self.local.account, FAR)
        self.site = self.local.furnish(FAR)
        self.dead = False  # does the far one not answer?
        self.requests: Counter[tuple[str, str]] = Counter()

    def providers(self, installation: str, host: Callable[[], float]) -> Mapping[str, Provider]:
        far: Any = self.amazon.provider(
            name="far",
            installation=installation,
            region=FAR,
            image=self.site.image,
            subnets=self.site.subnets[:2],
            security_groups=(self.site.security_group,),
        )
        return {**super().providers(installation, host), "far": Patient(far, self)}  # type: ignore[dict-item]

    def _add_vm(self, machine: Ec2Machine) -> None:
        self.scope = self.near if machine.backend.region_name == REGION else self.far
        if Ref(self.scope, Kind.INSTANCE, machine.id) not in self._all:
            super()._add_vm(machine)
        self.scope = self.near

    def _asked(self, request: Any) -> Any:
        self.requests[request.region, request.action] += 1
        if self.dead and request.region == FAR:
            return LOST_REQUEST
        return super()._asked(request)


def both(make_world: Callable[..., World]) -> tuple[World, TwoRegions]:
    """A build's VM in each, which the ledger knows no more; somebody reaps."""
    world = make_world(cloud=TwoRegions, airborne=True)
    cloud: Any = world.cloud
    world.build_seconds = 1e9
    for name in ("aws", "far"):
        world.submit(provider=name, ttl=TTL)
    node = world.node(reaps=False)
    world.run(60, until=lambda: len(world.started) == 2)
    assert len(world.started) == 2
    node.kill()
    world.lose_ledger()
    assert {vm.ref.scope for vm in world.ours()} == {cloud.near, cloud.far}
    world.node(drives=False)
    return world, cloud


def gone(world: World, scope: Scope) -> bool:
    return not any(vm.alive for vm in world.ours() if vm.ref.scope == scope)


def test_each_is_looked_at_swept_and_ended_in_its_own(make_world: Callable[..., World]) -> None:
    world, cloud = both(make_world)
    world.run(TTL + 60, until=lambda: gone(world, cloud.near) and gone(world, cloud.far))
    assert gone(world, cloud.near)
    assert gone(world, cloud.far)
    for region in (REGION, FAR):
        assert cloud.requests[region, "RunInstances"] == 1
        assert cloud.requests[region, "DescribeInstances"] > 0
        assert cloud.requests[region, "TerminateInstances"] > 0


def test_a_dead_region_keeps_no_vm_of_the_other_alive(make_world: Callable[..., World]) -> None:
    """The world sees to G in the near one."""
    world, cloud = both(make_world)
    cloud.dead = True
    world.out[cloud.far] = float("inf")
    world.run(TTL + 90, until=lambda: gone(world, cloud.near))
    assert gone(world, cloud.near)
    assert not gone(world, cloud.far)
    cloud.dead = False
    world.out[cloud.far] = world.clock()
    world.run(TTL + 120, until=lambda: gone(world, cloud.far))
    assert gone(world, cloud.far)
