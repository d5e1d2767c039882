"""A local EC2 in a process of its own: what it takes is not counted as its client's."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import boto3

from tests.amazon import ENVIRONMENT, INSTALLATION, REGION
from vmrunner.model import TAG
from vmrunner.testing.localcloud import LocalCloud, Site

BULK: Final = 500  # machines that one call of `fill` makes
TAGGED: Final = ("instance", "volume", "network-interface")

_SPAWN: Final = multiprocessing.get_context("spawn")  # nothing of the client's is in it


@dataclass(frozen=True)
class Endpoint:
    """The client's end of it."""

    url: str
    site: Site
    pipe: Connection

    def counts(self) -> Counter[str]:
        """The requests since the last time, by action."""
        found: Counter[str] = self._ask("counts")
        return found

    def alive(self) -> list[str]:
        """The ids of all machines that bill."""
        found: list[str] = self._ask("alive")
        return found

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
        self._ask("name")
        self.counts()

    def _ask(self, what: str) -> Any:
        self.pipe.send(what)
        return self.pipe.recv()


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """One account, furnished for a launch in one region."""
    here, there = _SPAWN.Pipe()
    child = _SPAWN.Process(target=_serve, args=(there,), daemon=True)
    child.start()
    there.close()  # else nobody would hear of its end
    url, site = here.recv()
    try:
        yield Endpoint(url, site, here)
    finally:
        here.send("stop")
        child.join()


def _serve(pipe: Connection) -> None:
    os.environ.update(ENVIRONMENT)
    with LocalCloud() as cloud:
        pipe.send((cloud.url, cloud.furnish(REGION)))
        while (asked := pipe.recv()) != "stop":
            if asked == "counts":
                counts = Counter(request.action for request in cloud.requests)
                cloud.requests.clear()
                pipe.send(counts)
            elif asked == "alive":
                pipe.send([machine.id for machine in cloud.alive])
            else:
                pipe.send(_name(cloud))


def _name(cloud: LocalCloud) -> None:
    """A bulk launch gives all of its machines the same tags; each has an instance id of its own."""
    for number, machine in enumerate(cloud.machines):
        machine.backend.tags[machine.id][f"{TAG}instance"] = f"vm-{number:026}"
