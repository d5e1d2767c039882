"""GCE for tests: a local one on a virtual clock, and Google's own clients for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1
from vmrunner_localclouds.gce import LocalGce
from vmrunner_localclouds.gce.machines import GceMachine

from vmrunner.lib import ids
from vmrunner.model import Key, Network, Offer, Order, Ref, Resource, Role, Seen, Spec
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.fake import Clock
from vmrunner.providers.gce.client import QUOTAS
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.provider import GceProvider

FAMILY: Final = "vmrunner"
INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
GENERATION: Final = "00000000-0000-4000-8000-000000000002"


class Google:
    """A local GCE on a virtual clock, what a launch needs there, and clients. A client that waits
    for an operation makes the clock go on."""

    def __init__(self, cloud: LocalGce, clock: Clock) -> None:
        self.cloud = cloud
        self.clock = clock
        self.site = cloud.furnish(family=FAMILY)
        self.project = self.site.project
        self.zone = self.site.zones[0]
        self._clients: dict[type, Any] = {}

    def client(self, kind: type[Any]) -> Any:
        """The genuine one, with another endpoint and no credentials: `InstancesClient`, …"""
        if kind not in self._clients:
            self._clients[kind] = kind(
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": self.cloud.url},
            )
        return self._clients[kind]

    @property
    def instances(self) -> compute_v1.InstancesClient:
        made: compute_v1.InstancesClient = self.client(compute_v1.InstancesClient)
        return made

    @property
    def operations(self) -> compute_v1.ZoneOperationsClient:
        made: compute_v1.ZoneOperationsClient = self.client(compute_v1.ZoneOperationsClient)
        return made

    def delete(self, name: str, **more: Any) -> Any:
        """The operation's first sight."""
        where = {"project": self.project, "zone": self.zone, "instance": name}
        return self.instances.delete_unary(request=where | more, retry=None)

    @property
    def machine(self) -> GceMachine:
        """The only one that ever was."""
        (machine,) = self.cloud.machines
        return machine

    def body(self, name: str, **more: Any) -> compute_v1.Instance:
        """One VM with a boot disk of its own and an external address."""
        values: dict[str, Any] = {
            "name": name,
            "machine_type": f"zones/{self.zone}/machineTypes/e2-standard-2",
            "disks": [self.boot_disk()],
            "network_interfaces": [
                {
                    "network": self.site.network,
                    "subnetwork": self.site.subnetwork,
                    "access_configs": [{"type_": "ONE_TO_ONE_NAT", "name": "External NAT"}],
                }
            ],
            "labels": {"vmrunner-instance": name},
        }
        return compute_v1.Instance(values | more)

    def boot_disk(self, *, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        new = {"source_image": self.site.family, "labels": labels or {}}
        values: dict[str, Any] = {"boot": True, "auto_delete": True, "initialize_params": new}
        return values | more

    def insert(self, name: str, *, request_id: str | None = None, **more: Any) -> Any:
        """The operation's first sight."""
        return self.instances.insert_unary(
            compute_v1.InsertInstanceRequest(
                project=self.project,
                zone=self.zone,
                request_id=request_id,
                instance_resource=self.body(name, **more),
            ),
            retry=None,
        )

    def wait(self, operation: Any) -> Any:
        """The operation when it is done."""
        return self.operations.wait(
            project=self.project, zone=self.zone, operation=operation.name, retry=None
        )

    def get(self, name: str) -> Any:
        return self.instances.get(project=self.project, zone=self.zone, instance=name, retry=None)

    def provider(self, **more: Any) -> GceProvider:
        """One process's view."""
        values: dict[str, Any] = {
            "name": "google",
            "installation": INSTALLATION,
            "project": self.project,
            "zones": self.site.zones[:2],
            "image": self.site.family,
            "subnetwork": self.site.subnetwork,
            "network": self.site.network,
            "api_endpoint": self.cloud.url,
        }
        buckets = Buckets(QUOTAS, now=self.clock, sleep=self.clock.sleep)
        return GceProvider(
            GceOptions(**(values | more)),
            buckets=buckets,
            elapsed=self.clock,
            sleep=self.clock.sleep,
        )

    def close(self) -> None:
        for client in self._clients.values():
            client.transport.close()


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    """Status, reason and message of the error that the service answers."""
    with pytest.raises(GoogleAPICallError) as caught:
        call()
    error = caught.value
    return int(error.code or 0), error.errors[0]["reason"], error.errors[0]["message"]


@contextlib.contextmanager
def google(**more: Any) -> Iterator[Google]:
    clock = Clock()
    with LocalGce(clock=clock, sleep=clock.sleep, **more) as cloud:
        made = Google(cloud, clock)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def gce() -> Iterator[Google]:
    with google() as made:
        yield made


def make_order(
    provider: GceProvider, spec: Spec | None = None, *, offer: Offer | None = None
) -> Order:
    """An order for the best offer, or for this one."""
    return Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        role=Role.BUILD,
        offer=offer or provider.offers(spec or Spec())[0],
        deadline=float(int(provider.now() + 3600)),
        user_data=b"#cloud-config\n{}\n",
        network=Network.OPEN,
    )


def look(provider: GceProvider, order: Order, ref: Ref | None = None) -> Seen | None:
    key = Key(order.offer.scope, order.instance, ref.id if ref else None)
    return provider.look([key]).get(key)


def swept(provider: GceProvider) -> list[Resource]:
    """All of this installation that a sweep shows."""
    found = (r for page in provider.sweep() for r in page.resources)
    return [r for r in found if r.tag("installation") == INSTALLATION]
