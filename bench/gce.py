"""What Compute Engine costs through vmrunner, beside a script of raw calls.

    python bench/gce.py [--builds 200] [--pairs 3]

The real engine and driver, with sessions that end at once, from submit until each VM is seen dead.
The script does the least with Google's own client, and as many threads as the engine has for
creates: insert, wait for the operation, delete, wait for that one. They take turns, each at a fresh
endpoint in a process of its own, whose CPU is not counted and where an operation takes a while.
Exit 1 when the bound on calls is broken.
"""

from __future__ import annotations

import argparse
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.clouds import (
    Endpoint,
    Spent,
    answer,
    compared,
    endpoint,
    order,
    show,
    spent,
    through_vmrunner,
    unlimited,
)
from tests.support.gce import INSTALLATION
from vmrunner.providers.gce import create_request
from vmrunner.providers.gce.client import QUOTAS
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.gce.provider import CREATES, GceProvider
from vmrunner.testing.localgce import LocalGce

OPERATION: Final = 0.05  # seconds that an insert or a delete is under way


def serve(pipe: Connection) -> None:
    with LocalGce() as cloud:
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


def by_script(builds: int) -> Spent:
    """What a person would write: nothing is looked at, nothing is sent again."""
    with endpoint(Endpoint, serve) as at:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the ledgers are made")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)

    def ours(builds: int) -> Spent:
        with endpoint(Endpoint, serve) as at:
            google = provider(at)
            return through_vmrunner(at, google, INSTALLATION, builds, arguments.directory)

    return show(compared(arguments.builds, arguments.pairs, ours, by_script), arguments.directory)


if __name__ == "__main__":
    raise SystemExit(main())
