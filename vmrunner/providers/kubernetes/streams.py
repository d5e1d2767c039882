"""The way to an instance's sshd, over the API server: into a pod by exec of one sshd for each
stream, which reaches behind any wall and lets nothing listen; to a VM's port by KubeVirt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlencode

from vmrunner.lib.websocket_channel import EXEC, KUBEVIRT, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address
from vmrunner.providers.kubernetes.client import PODS, VMIS, KubeClient
from vmrunner.providers.kubernetes.provider import KubernetesProvider
from vmrunner.providers.kubernetes.states import OURS, VMI_HOST
from vmrunner.providers.port import Provider

SSHD: Final = "/usr/lib/vmrunner/sshd"
#: KubeVirt's subresources have a group of their own.
FORWARDED: Final = VMIS._replace(group="subresources.kubevirt.io")


class ClusterChannel(WebSocketChannel):
    """`Channel` to the pods and VMs of one provider."""

    def __init__(self, provider: Callable[[], Provider]) -> None:
        def target(address: Address) -> WebSocketTarget:
            opened = cast("KubernetesProvider", provider())
            return target_of(opened.client, address)

        super().__init__(target)


def target_of(client: KubeClient, address: Address) -> WebSocketTarget:
    """Target of a stream to this address. Raises ConfigError."""
    name = address.host.rpartition("/")[2]
    if address.host.startswith(VMI_HOST):
        path = client.path(FORWARDED, name, f"portforward/{address.port}/tcp")
        return client.stream(path, KUBEVIRT)
    return client.stream(exec_path(client, name, OURS, SSHD), EXEC)


def exec_path(client: KubeClient, pod: str, container: str, *command: str) -> str:
    """Path of an exec stream."""
    query = [("container", container), *(("command", word) for word in command)]
    query += [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    return f"{client.path(PODS, pod, 'exec')}?{urlencode(query)}"
