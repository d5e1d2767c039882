"""What Compute Engine costs through vmrunner, beside a script of raw calls.

    python bench/gce.py [--builds 200] [--pairs 3] [--latency 0.1 0.5]

The real engine and driver, with sessions that end at once, from submit until each VM is seen dead.
The script does the least with Google's own client, and as many threads as the engine has for
creates: insert, wait for the operation, delete, wait for that one. They take turns, each at a fresh
endpoint in a process of its own, whose CPU is not counted and where an operation takes a while;
then once more where each answer takes so long. Exit 1 when the bound on calls is broken.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

sys.path.insert(0, str(Path(__file__).parents[1]))

from vmrunner_localclouds.gce import LocalGce, routes

from bench.clouds import Endpoint, Spent, answer, compare, endpoint, order, spent, unlimited
from tests.support.gce import INSTALLATION
from vmrunner.providers.gce import create_request
from vmrunner.providers.gce.client import QUOTAS
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.provider import CREATES, GceProvider

OPERATION: Final = 0.05  # seconds that an insert or a delete is under way


def serve(pipe: Connection, *, latency: float) -> None:
    with LocalGce() as cloud:
        cloud.throttles = False  # both sides are to be as fast as they can
        cloud.answer_seconds = dict.fromkeys(routes.KNOWN, latency)
        cloud.operation_seconds = cloud.delete_seconds = OPERATION
        for limits in cloud.quotas.values():
            limits.clear()  # a new project has room for few
        alive = {"alive": lambda: [machine.name for machine in cloud.machines if machine.alive]}
        answer(pipe, cloud, cloud.furnish(), alive)


def provider(at: Endpoint) -> GceProvider:
    options = GceOptions(
        name="google",
        installation=INSTALLATION,
        project=at.site.project,
        zones=at.site.zones[:1],
        image=at.site.family,
        network=at.site.network,
        subnetwork=at.site.subnetwork,
        api_endpoint=at.url,
    )
    return GceProvider(options, buckets=unlimited(QUOTAS))


def by_script(builds: int, *, latency: float) -> Spent:
    """The costs of a plain script: it checks nothing and retries nothing."""
    with endpoint(Endpoint, partial(serve, latency=latency)) as at:
        google = provider(at)
        resources = [
            create_request.instance(order(google, INSTALLATION), google.options)
            for _ in range(builds)
        ]
        where = {"project": at.site.project, "zone": at.site.zones[0]}

        def work() -> None:
            instances, operations = (
                kind(
                    credentials=AnonymousCredentials(),
                    client_options={"api_endpoint": at.url},
                )
                for kind in (compute_v1.InstancesClient, compute_v1.ZoneOperationsClient)
            )

            def finish(operation: Any) -> None:
                while operation.status != compute_v1.Operation.Status.DONE:
                    operation = operations.wait(request={**where, "operation": operation.name})
                assert not operation.error.errors

            def life(resource: dict[str, Any]) -> None:
                finish(instances.insert_unary(request={**where, "instance_resource": resource}))
                finish(instances.delete_unary(request={**where, "instance": resource["name"]}))

            with ThreadPoolExecutor(CREATES) as pool:
                list(pool.map(life, resources))

        return spent(at, work)


if __name__ == "__main__":
    raise SystemExit(compare(__doc__, serve, provider, by_script, INSTALLATION))
