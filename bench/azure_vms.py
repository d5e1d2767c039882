"""What Azure costs through vmrunner, beside a script of raw calls.

    python bench/azure_vms.py [--builds 200] [--pairs 3] [--latency 0.1 0.5]

The real engine and driver, with sessions that end at once, from submit until each VM is seen dead.
The script does the least with Microsoft's own clients, and as many threads as the engine has for
creates: put a VM, wait for the operation, submit its deallocation, read its address, delete it,
wait for that, cancel the deallocation. They take turns, each at a fresh endpoint in a process of
its own, whose CPU is not counted and where an operation takes a while; then once more where each
answer takes so long. Exit 1 when the bound on calls is broken.
"""

from __future__ import annotations

import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.computeschedule import ComputeScheduleMgmtClient
from azure.mgmt.network import NetworkManagementClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from vmrunner_localclouds.azure import LocalAzure, routes
from vmrunner_localclouds.azure import create as local_creates

from bench.clouds import Endpoint, Spent, answer, compare, endpoint, order, spent, unlimited
from vmrunner.providers.azure import boots, create_request
from vmrunner.providers.azure.client import QUOTAS, last
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.provider import CREATES, AzureProvider

INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
OPERATION: Final = 0.05  # seconds that a create or a delete is under way
ROOM: Final = 1_000_000  # of each quota: a new subscription has room for few


def serve(pipe: Connection, *, latency: float) -> None:
    local_creates.DEPLOYMENTS = ROOM  # of one image at once: the script waits for none
    with LocalAzure() as cloud:
        cloud.throttles = False  # both sides are to be as fast as they can
        cloud.answer_seconds = dict.fromkeys(routes.KNOWN, latency)
        cloud.boot_seconds = cloud.delete_seconds = OPERATION
        cloud.quotas = {
            place: dict.fromkeys(quotas, ROOM) for place, quotas in cloud.quotas.items()
        }
        alive = {"alive": lambda: [machine.name for machine in cloud.alive]}
        answer(pipe, cloud, cloud.furnish(), alive)


def provider(at: Endpoint) -> AzureProvider:
    boots.AT_ONCE = ROOM  # nor does the driver: else each that is too many waits for seconds
    options = AzureOptions(
        name="azure",
        installation=INSTALLATION,
        subscription=at.site.subscription,
        resource_group=at.site.group,
        location=at.site.location,
        zones=at.site.zones[:1],
        image=at.site.image,
        subnet=at.site.subnet,
        endpoint=at.url,
    )
    return AzureProvider(options, buckets=unlimited(QUOTAS))


class NoCredential(SansIOHTTPPolicy[Any, Any]):
    """No token: the clients' own policy gives none to plain HTTP."""


def by_script(builds: int, *, latency: float) -> Spent:
    """The costs of a plain script: it checks nothing and retries nothing."""
    with endpoint(Endpoint, partial(serve, latency=latency)) as at:
        azure = provider(at)
        machines = []
        for _ in range(builds):
            vm_order = order(azure, INSTALLATION)
            machine = create_request.machine(vm_order, azure.options, local="")
            machines.append((vm_order.instance, machine))

        def work() -> None:
            vms, network, timers = (
                kind(
                    NoCredential(),
                    at.site.subscription,
                    base_url=at.url,
                    authentication_policy=NoCredential(),
                    polling_interval=OPERATION,
                )
                for kind in (
                    ComputeManagementClient,
                    NetworkManagementClient,
                    ComputeScheduleMgmtClient,
                )
            )
            only = {"etag": "*", "match_condition": MatchConditions.IfMissing}

            def life(named: tuple[str, dict[str, Any]]) -> None:
                name, machine = named
                machines = vms.virtual_machines
                made = machines.begin_create_or_update(
                    at.site.group, name, machine, **only
                ).result()
                body = {
                    "schedule": {
                        "deadline": "2099-01-01T00:00:00Z",
                        "timezone": "UTC",
                        "deadlineType": "InitiateAt",
                    },
                    "executionParameters": {},
                    "resources": {"ids": [made.id]},
                    "correlationid": str(uuid.uuid4()),
                }
                submitted = timers.scheduled_actions.virtual_machines_submit_deallocate(
                    at.site.location, body
                )
                (card,) = made.properties.network_profile.network_interfaces
                shown = network.network_interfaces.get(at.site.group, last(card.id))
                (config,) = shown.properties.ip_configurations
                address = config.properties.public_ip_address
                network.public_ip_addresses.get(at.site.group, last(address.id))
                machines.begin_delete(at.site.group, name, force_deletion=True).result()
                (result,) = submitted.results
                timers.scheduled_actions.virtual_machines_cancel_operations(
                    at.site.location,
                    {
                        "operationIds": [result.operation.operation_id],
                        "correlationid": str(uuid.uuid4()),
                    },
                )

            with ThreadPoolExecutor(CREATES) as pool:
                list(pool.map(life, machines))

        return spent(at, work)


if __name__ == "__main__":
    raise SystemExit(compare(__doc__, serve, provider, by_script, INSTALLATION))
