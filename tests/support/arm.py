"""Azure for tests: a local one on a virtual clock, and Microsoft's own clients for it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.computeschedule import ComputeScheduleMgmtClient
from azure.mgmt.network import NetworkManagementClient
from vmrunner_localclouds.azure import AzureMachine, AzureSite, LocalAzure
from vmrunner_localclouds.azure.api_error import Json

from vmrunner.providers.fake import Clock

SIZE: Final = "Standard_D2s_v5"
KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1xk5yrH8H2lLk3x0u2e2k4mW4m3sFh0fD2mE5nq8aB test"


class _Bearer(SansIOHTTPPolicy[Any, Any]):
    """The client's own policy gives no token to plain HTTP."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.http_request.headers["Authorization"] = "Bearer test"


class _Nobody:
    """A credential that nobody asks: the policy above is in its place."""

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        raise AssertionError("who asked?")


class Arm:
    """A local Azure on a virtual clock, what a launch needs there, and clients. A client that polls
    an operation makes the clock go on."""

    def __init__(self, cloud: LocalAzure, clock: Clock) -> None:
        self.cloud = cloud
        self.clock = clock
        self.site = cloud.furnish()
        self.group = self.site.group
        self._open: list[Any] = []
        self.compute: ComputeManagementClient = self._client(ComputeManagementClient)
        self.network: NetworkManagementClient = self._client(NetworkManagementClient)
        self.schedule: ComputeScheduleMgmtClient = self._client(ComputeScheduleMgmtClient)

    def _client(self, kind: type[Any]) -> Any:
        """The genuine one, with another endpoint, no retries, and no wait between polls."""
        made = kind(
            _Nobody(),
            self.cloud.subscription,
            base_url=self.cloud.url,
            authentication_policy=_Bearer(),
            retry_total=0,
            polling_interval=0,
        )
        self._open.append(made)
        return made

    @property
    def vms(self) -> Any:
        return self.compute.virtual_machines

    @property
    def machine(self) -> AzureMachine:
        """The only one that ever was."""
        (machine,) = self.cloud.machines
        return machine

    def body(self, name: str, **more: Any) -> Json:
        """One VM whose disk, interface and address die with it; `more` are its properties."""
        return body_of(self.site, name, {"vmrunner:instance": name}, **more)

    def begin(self, name: str, body: Json | None = None, **more: Any) -> Any:
        """The poller of a create that must not find one there."""
        return self.vms.begin_create_or_update(
            self.group,
            name,
            body or self.body(name),
            etag="*",
            match_condition=MatchConditions.IfMissing,
            **more,
        )

    def create(self, name: str, body: Json | None = None) -> Any:
        """The VM, when its operation is over."""
        return self.begin(name, body).result()

    def delete(self, name: str, **more: Any) -> None:
        self.vms.begin_delete(self.group, name, **more).result()

    def power(self, name: str) -> str:
        """The power state, as a client sees it; empty: none."""
        view = self.vms.instance_view(self.group, name)
        states = [s.code for s in view.statuses if s.code.startswith("PowerState/")]
        return states[0].removeprefix("PowerState/") if states else ""

    def left(self) -> list[str]:
        """Kinds of all parts of VMs that are there, used or not."""
        return sorted(leftover["type"].rpartition("/")[2] for leftover in self.cloud.remaining)

    def close(self) -> None:
        for client in self._open:
            client.close()


def body_of(site: AzureSite, name: str, tags: dict[str, str], **more: Any) -> Json:
    """One VM whose disk, interface and address die with it; `more` are its properties."""
    address: Json = {
        "name": "address",
        "sku": {"name": "Standard"},
        "tags": tags,
        "properties": {"deleteOption": "Delete"},
    }
    inner = {"subnet": {"id": site.subnet}, "publicIPAddressConfiguration": address}
    interface: Json = {
        "name": "nic",
        "tags": tags,
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "ipConfigurations": [{"name": "ip", "properties": inner}],
        },
    }
    user = {"path": "/home/builder/.ssh/authorized_keys", "keyData": KEY}
    properties: Json = {
        "hardwareProfile": {"vmSize": SIZE},
        "storageProfile": {
            "imageReference": {"id": site.image},
            "osDisk": {"createOption": "FromImage", "deleteOption": "Delete"},
        },
        "osProfile": {
            "computerName": name,
            "adminUsername": "builder",
            "customData": base64.b64encode(b"#cloud-config\n{}\n").decode(),
            "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "provisionVMAgent": False,
                "ssh": {"publicKeys": [user]},
            },
            "allowExtensionOperations": False,
        },
        "networkProfile": {
            "networkApiVersion": "2022-11-01",
            "networkInterfaceConfigurations": [interface],
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    return {"location": site.location, "tags": tags, "properties": properties | more}


A = TypeVar("A", bound=Arm)


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """Status and code of the error that the service answers."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    error = caught.value
    return error.status_code or 0, str(getattr(error.error, "code", ""))


@contextlib.contextmanager
def arm_of(
    cloud: LocalAzure,
    clock: Clock | None = None,
    kind: type[A] = Arm,  # type: ignore[assignment]
) -> Iterator[A]:
    made = kind(cloud, clock or Clock())
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def azure(**more: Any) -> Iterator[Arm]:
    clock = Clock()
    with LocalAzure(clock=clock, sleep=clock.sleep, **more) as cloud, arm_of(cloud, clock) as made:
        yield made


@pytest.fixture
def arm() -> Iterator[Arm]:
    with azure() as made:
        yield made
