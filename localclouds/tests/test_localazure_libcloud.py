"""The local Azure by a client that has nothing of Microsoft's in it: libcloud, whose calls are
others, of older versions of the API, and written in another case."""

from __future__ import annotations

import time
from typing import Any

from libcloud.common.azure_arm import AzureResourceManagementConnection
from libcloud.compute.drivers.azure_arm import AzureNodeDriver
from libcloud.compute.types import NodeState
from vmrunner_localclouds.azure import LocalAzure

from tests.support.arm import Arm, arm
from tests.support.azure import Microsoft, azure, look, make_order
from vmrunner.model import tags_of

__all__ = ["arm", "azure"]


class _Plain(AzureResourceManagementConnection):
    """Its own goes to port 443 alone, with TLS whatever it is told, and first for a token."""

    def __init__(self, *args: Any, cloud_environment: dict[str, Any], **more: Any) -> None:
        super().__init__(*args, cloud_environment=cloud_environment, **more)
        self.secure, self.port = 0, cloud_environment["port"]

    def get_token_from_credentials(self) -> None:
        self.access_token, self.expires_on = "libcloud", time.time() + 3600


class _Driver(AzureNodeDriver):  # type: ignore[misc]
    connectionCls = _Plain  # noqa: N815 - its name


def driver(cloud: LocalAzure) -> Any:
    here = {
        "resourceManagerEndpointUrl": cloud.url,
        "activeDirectoryEndpointUrl": cloud.url,
        "activeDirectoryResourceId": cloud.url,
        "storageEndpointSuffix": ".none",
        "port": int(cloud.url.rpartition(":")[2]),
    }
    return _Driver("t", cloud.subscription, "k", "s", cloud_environment=here)


def test_another_client_lists_what_was_made(arm: Arm) -> None:
    arm.cloud.page_size = 1
    arm.create("vm-1")
    arm.create("vm-2", arm.body("vm-2", priority="Spot"))
    other = driver(arm.cloud)
    first, second = other.list_nodes()
    assert (first.name, first.state, second.name) == ("vm-1", NodeState.RUNNING, "vm-2")
    assert first.private_ips[0].startswith("10.8.")
    assert first.public_ips[0].startswith("198.18.")
    assert first.extra["tags"] == {"vmrunner:instance": "vm-1"}
    assert [v.name.partition("_")[0] for v in other.list_volumes(arm.group)] == ["vm-1", "vm-2"]
    arm.cloud.page_size = 100  # it turns no pages of the rest
    (network,) = other.ex_list_networks()
    assert [subnet.id for subnet in other.ex_list_subnets(network)] == [arm.site.subnet]
    assert len(other.ex_list_nics(arm.group)) == 2
    assert len(other.ex_list_public_ips(arm.group)) == 2
    assert arm.cloud.rejected == []


def test_another_client_lists_what_the_driver_made(azure: Microsoft) -> None:
    provider = azure.provider()
    order = make_order(provider)
    ref = provider.create(order)
    other = driver(azure.cloud)
    (node,) = other.list_nodes()
    assert (node.name, node.state) == (ref.id, NodeState.RUNNING)
    assert node.extra["tags"] == tags_of(order)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.address is not None
    assert node.public_ips == [seen.address.host]
    assert [volume.name for volume in other.list_volumes(azure.site.group)] == [ref.id]


def test_another_client_stops_and_ends_a_vm(arm: Arm) -> None:
    arm.create("vm-1")
    other = driver(arm.cloud)
    (node,) = other.list_nodes()
    other.stop_node(node)
    (node,) = other.list_nodes()
    assert node.state == NodeState.STOPPED
    other.start_node(node)
    assert other.destroy_node(node, ex_destroy_nic=False, ex_destroy_os_disk=False, ex_poll_wait=0)
    assert other.list_nodes() == []
    assert arm.left() == []
