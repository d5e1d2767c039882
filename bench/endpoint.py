"""A local EC2 in a process of its own: what it takes is not counted as its client's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import boto3
from vmrunner_localclouds.ec2 import LocalCloud
from vmrunner_localclouds.ec2.endpoint import Ec2Endpoint

from bench.clouds import Endpoint, answer, endpoint
from tests.support.ec2 import ENVIRONMENT, INSTALLATION, REGION
from vmrunner.model import TAG

BULK: Final = 500  # machines that one call of `fill` makes
TAGGED: Final = ("instance", "volume", "network-interface")


class Account(Endpoint):
    """The client's end of it."""

    def fill(self, machines: int, expired: int, now: float) -> None:
        """So many machines of an earlier ledger's, as launches tag them; the first `expired` are
        past their deadline."""
        ec2 = boto3.client("ec2", region_name=REGION, endpoint_url=self.url)
        subnets = self.site.subnets
        for start in range(0, machines, BULK):
            count = min(BULK, machines - start)
            assert expired % BULK == 0, "a bulk launch has one deadline"
            ends = now - 600 if start < expired else now + 7200
            pairs = {
                "Name": "vmrunner",
                f"{TAG}installation": INSTALLATION,
                f"{TAG}generation": "earlier",
                f"{TAG}role": "build",
                f"{TAG}build": "b-earlier",
                f"{TAG}expires-at": str(int(ends)),
            }
            tags = [{"Key": key, "Value": value} for key, value in pairs.items()]
            ec2.run_instances(
                MinCount=count,
                MaxCount=count,
                ImageId=self.site.image,
                InstanceType="m7i.large",
                SubnetId=subnets[start // BULK % len(subnets)],  # one alone has no room
                TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in TAGGED],
            )
        self.ask("name")
        self.counts()


class SlowEndpoint(Ec2Endpoint):
    """One in which each answer takes so many seconds more, and no processor."""

    latency = 0.0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        time.sleep(self.latency)  # before its turn: the cloud answers one after the other
        return super().__call__(environ, start_response)


class SlowCloud(LocalCloud):
    """A local EC2 that is as far away as a real one."""

    def __init__(self, latency: float) -> None:
        super().__init__()
        self._endpoint = SlowEndpoint(self)
        self._endpoint.latency = latency


def account(latency: float = 0.0) -> AbstractContextManager[Account]:
    """One account, furnished for a launch in one region."""
    return endpoint(Account, partial(serve, latency=latency))


def serve(pipe: Connection, *, latency: float) -> None:
    os.environ.update(ENVIRONMENT)
    with SlowCloud(latency) as cloud:
        cloud.throttles = False  # both sides are to be as fast as they can
        answers: dict[str, Callable[[], object]] = {
            "alive": lambda: [machine.id for machine in cloud.alive],
            "name": lambda: _name(cloud),
        }
        answer(pipe, cloud, cloud.furnish(REGION), answers)


def _name(cloud: LocalCloud) -> None:
    """A bulk launch gives all of its machines the same tags; each has an instance id of its own."""
    for number, machine in enumerate(cloud.machines):
        machine.backend.tags[machine.id][f"{TAG}instance"] = f"vm-{number:026}"
