"""Azure for tests: a local one on a virtual clock, and a driver for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest
from vmrunner_localclouds.azure import AzureMachine, LocalAzure

from vmrunner.lib import ids
from vmrunner.model import Key, Network, Order, Ref, Resource, Role, Seen, Spec
from vmrunner.providers.azure.client import QUOTAS
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.provider import AzureProvider
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.fake import Clock

INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
GENERATION: Final = "00000000-0000-4000-8000-000000000002"


class Microsoft:
    """A local Azure on a virtual clock, and what a launch needs there."""

    def __init__(self, cloud: LocalAzure, clock: Clock) -> None:
        self.cloud = cloud
        self.clock = clock
        self.site = cloud.furnish()

    @property
    def machine(self) -> AzureMachine:
        """The only one that ever was."""
        (machine,) = self.cloud.machines
        return machine

    def provider(self, **more: Any) -> AzureProvider:
        """One process's view."""
        values: dict[str, Any] = {
            "name": "azure",
            "installation": INSTALLATION,
            "subscription": self.site.subscription,
            "resource_group": self.site.group,
            "location": self.site.location,
            "zones": self.site.zones[:2],
            "image": self.site.image,
            "subnet": self.site.subnet,
            "endpoint": self.cloud.url,
        }
        return AzureProvider(
            AzureOptions(**(values | more)),
            buckets=Buckets(QUOTAS, now=self.clock, sleep=self.clock.sleep),
            elapsed=self.clock,
            sleep=self.clock.sleep,
        )


@pytest.fixture
def azure() -> Iterator[Microsoft]:
    with local_azure() as made:
        yield made


@contextlib.contextmanager
def local_azure() -> Iterator[Microsoft]:
    clock = Clock()
    with LocalAzure(clock=clock, sleep=clock.sleep) as cloud:
        yield Microsoft(cloud, clock)


def make_order(provider: AzureProvider, spec: Spec | None = None, **more: Any) -> Order:
    values: dict[str, Any] = {
        "instance": ids.instance_id(),
        "build": ids.build_id(),
        "installation": INSTALLATION,
        "generation": GENERATION,
        "role": Role.BUILD,
        "offer": provider.offers(spec or Spec())[0],
        "deadline": float(int(provider.now() + 600)),
        "max_ttl": 14400.0,
        "user_data": b"#cloud-config\n{}\n",
        "network": Network.NONE,
    }
    return Order(**(values | more))


def look(provider: AzureProvider, order: Order, ref: Ref | None = None) -> Seen | None:
    key = Key(order.offer.scope, order.instance, ref.id if ref else None)
    return provider.look([key]).get(key)


def swept(provider: AzureProvider) -> list[Resource]:
    return [resource for page in provider.sweep() for resource in page.resources]
