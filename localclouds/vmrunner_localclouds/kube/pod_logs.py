"""Logs of pods: `GET …/pods/NAME/log` (pkg/registry/core/pod/rest/log.go of 1.34.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmrunner_localclouds.kube.api_error import Json, bad_request
from vmrunner_localclouds.kube.requests import KubeRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube


def read(cloud: LocalKube, request: KubeRequest, pod: Json) -> bytes:
    """The bytes that a container has written. Raises `KubeRefusal`."""
    name = pod["metadata"]["name"]
    container = container_of(request, pod, ("initContainers", "containers"))
    statuses = pod["status"].get("containerStatuses", ())
    if not any(each["name"] == container and "waiting" not in each["state"] for each in statuses):
        text = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
        raise bad_request(text)
    machine = cloud.machine(pod["metadata"]["uid"])
    data = machine.log(container) if machine is not None else b""
    if (lines := request.number("tailLines")) is not None:
        data = b"".join(data.splitlines(keepends=True)[-lines:] if lines else [])
    if (most := request.number("limitBytes")) is not None:
        data = data[:most]
    return data


def container_of(request: KubeRequest, pod: Json, fields: Sequence[str]) -> str:
    """The container that a request means. Raises `KubeRefusal`."""
    name = pod["metadata"]["name"]
    containers = [each["name"] for field in fields for each in pod["spec"].get(field) or ()]
    container = request.option("container")
    if not container and len(pod["spec"]["containers"]) > 1:
        text = f"a container name must be specified for pod {name}, choose one of:"
        raise bad_request(f"{text} [{' '.join(containers)}]")
    container = container or str(pod["spec"]["containers"][0]["name"])
    if container not in containers:
        raise bad_request(f"container {container} is not valid for pod {name}")
    return container
