"""EC2 for tests: credentials that mean nothing, and providers at a local endpoint."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from unittest import mock

import pytest
from botocore import session as botocore_session
from vmrunner_localclouds.ec2 import Ec2Machine, LocalCloud

from vmrunner.lib import ids
from vmrunner.model import Key, Kind, Network, Order, Page, Ref, Resource, Role, Seen, Spec
from vmrunner.providers.common.rate_limits import Buckets
from vmrunner.providers.ec2.client import QUOTAS
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.ec2.provider import Ec2Provider
from vmrunner.providers.fake import Clock

KEY: Final = "AKIALOCALLOCALLOCAL0"
REGION: Final = "eu-west-1"
#: What a sweep shows where no schedules are made.
KINDS: Final = frozenset(
    {
        Kind.INSTANCE, Kind.DISK, Kind.ADDRESS, Kind.INTERFACE, Kind.SNAPSHOT, Kind.SPOT_REQUEST,
        Kind.KEY, Kind.GROUP, Kind.IMAGE,
    }
)  # fmt: skip
INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
GENERATION: Final = "00000000-0000-4000-8000-000000000002"

#: Nothing of the user's own, and no question to a metadata service.
ENVIRONMENT: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


#: One for all sessions: each new one reads the whole of a service's model anew, which takes longer
#: than most of what it is made for.
_loader = functools.cache(botocore_session.create_loader)


@contextlib.contextmanager
def credentials(**more: str) -> Iterator[None]:
    """While inside, the SDK's chain finds these, and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    with (
        mock.patch.dict(os.environ, {**kept, **ENVIRONMENT, **more}, clear=True),
        mock.patch.object(botocore_session, "create_loader", _loader),
    ):
        yield


class Amazon:
    """A local cloud on a virtual clock, and what a provider needs to launch there. Nobody sleeps
    for a token: the clock of the buckets goes on instead."""

    def __init__(self, cloud: LocalCloud, clock: Clock) -> None:
        self.cloud = cloud
        self.clock = clock
        self.site = cloud.furnish(REGION)
        self.waited: list[float] = []

    def provider(self, **more: Any) -> Ec2Provider:
        """One process's view."""
        values: dict[str, Any] = {
            "name": "aws",
            "installation": INSTALLATION,
            "region": REGION,
            "image": self.site.image,
            "subnets": self.site.subnets[:2],
            "security_groups": (self.site.security_group,),
            "instance_types": ("m7i.large", "c7i.large"),
            "endpoint_url": self.cloud.url,
        }
        buckets = Buckets(QUOTAS, now=self.clock, sleep=self._wait)
        return Ec2Provider(Ec2Options(**(values | more)), buckets=buckets, elapsed=self.clock)

    def _wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.clock.advance(seconds)

    def plant(self, **tags: str) -> Ec2Machine:
        """A machine that somebody launched without a provider."""
        order = make_order(self.provider())
        self.provider().create(order)
        (machine,) = self.cloud.of(order.instance)
        machine.backend.tags[machine.id] = dict(tags)
        return machine


@contextlib.contextmanager
def amazon() -> Iterator[Amazon]:
    clock = Clock()
    with credentials(), LocalCloud(clock=clock) as cloud:
        yield Amazon(cloud, clock)


@pytest.fixture
def aws() -> Iterator[Amazon]:
    """One that tells the time of this host, for programs that have no other clock."""
    with amazon() as made:
        made.cloud.skew = time.time() - made.clock()
        yield made


def make_order(provider: Ec2Provider, spec: Spec | None = None, **more: Any) -> Order:
    """An order for the best offer."""
    order = Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=INSTALLATION,
        generation=GENERATION,
        role=Role.BUILD,
        offer=provider.offers(spec or Spec())[0],
        deadline=float(int(provider.now() + 3600)),
        user_data=b"#cloud-config\n{}\n",
        network=Network.OPEN,
    )
    return replace(order, **more)


def fleet(aws: Amazon, count: int) -> tuple[Ec2Provider, list[Ref]]:
    """So many newborn machines, and a provider that has made them."""
    provider = aws.provider()
    return provider, [provider.create(make_order(provider)) for _ in range(count)]


def look(provider: Ec2Provider, order: Order, ref: Ref | None = None) -> Seen | None:
    key = Key(order.offer.scope, order.instance, ref.id if ref else None)
    return provider.look([key]).get(key)


def swept(provider: Ec2Provider, of: Callable[[Page], bool] = lambda _: True) -> list[Resource]:
    """All of this installation that a sweep shows."""
    found = (r for page in provider.sweep() if of(page) for r in page.resources)
    return [r for r in found if r.tag("installation") == INSTALLATION]


@pytest.fixture(name="aws")
def virtual_aws() -> Iterator[Amazon]:
    with amazon() as made:
        yield made
