"""Requests that become streams: into pods, to VMs' ports and consoles."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final, Protocol

from vmrunner_localclouds.common.http_server import HttpAnswer
from vmrunner_localclouds.kube import exec_streams, forwards, pod_logs
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, bad_request, conflict, not_found
from vmrunner_localclouds.kube.exec_streams import ExecStream, Program
from vmrunner_localclouds.kube.forwards import ConsoleStream, PodPort, RawStream
from vmrunner_localclouds.kube.kinds import PODS, VMIS
from vmrunner_localclouds.kube.kubelet import ADDRESS
from vmrunner_localclouds.kube.requests import KubeRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

#: Handlers of runtime classes whose pods nobody reaches through the node's network: they have one
#: of their own (containerd#6638, google/gvisor#3811, kata-containers#10843).
_WALLED: Final = ("runsc", "kata")


class Stream(Protocol):
    def cut(self) -> None: ...
    def serve(self, handler: BaseHTTPRequestHandler) -> None: ...


def answer(cloud: LocalKube, request: KubeRequest) -> HttpAnswer:
    """The answer that becomes a stream. Raises `KubeRefusal`."""
    what, *rest = request.subresource.split("/")
    if request.resource == PODS.plural and not request.group:
        makers = {"exec": _exec, "portforward": _pod_port}
        if what not in makers:
            raise KubeRefusal(404, "the server could not find the requested resource")
        found = cloud.store.get(PODS, request.namespace, request.name)
        if found is None:
            raise not_found(PODS.resource, request.name)
        return makers[what](cloud, request, found)
    vmi = cloud.store.get(VMIS, request.namespace, request.name)
    if vmi is None:
        raise not_found(VMIS.resource, request.name)
    if what == "portforward" and rest and rest[0].isdigit():
        return _vm_port(cloud, request, vmi, int(rest[0]))
    if what == "console":
        return _console(cloud, request, vmi)
    raise KubeRefusal(404, "the server could not find the requested resource")


def _exec(cloud: LocalKube, request: KubeRequest, pod: Json) -> HttpAnswer:
    name = pod["metadata"]["name"]
    container = pod_logs.container_of(request, pod, ("containers",))
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    if pod["status"].get("phase") in ("Succeeded", "Failed"):
        text = "cannot exec into a container in a completed pod; current phase is"
        raise bad_request(f"{text} {pod['status']['phase']}")
    command = request.query.get("command", ())
    if not command:
        raise bad_request("you must specify at least one command for the container")
    chosen = _chosen(request, (exec_streams.V5, exec_streams.V4))
    if chosen is None:
        return HttpAnswer(403)  # x/net/websocket: ErrBadWebSocketProtocol
    machine = cloud.machine(pod["metadata"]["uid"])
    assert machine is not None

    def begin() -> Program:
        if not cloud.kubelet.on:
            raise OSError(f"error dialing backend: dial tcp {ADDRESS}:10250: i/o timeout")
        if not _runs(machine.status, container):
            raise OSError(f'unable to upgrade connection: container not found ("{container}")')
        if machine.running is not None:
            try:
                program: Program = machine.running.exec(container, list(command))
            except LookupError as error:
                raise OSError(f"error executing command in container: {error}") from None
            return program
        if cloud.programs is None:
            raise OSError("error executing command in container: this pod is a state alone")
        return cloud.programs(machine, container, command)

    return _takes_over(cloud, ExecStream(request, chosen, begin))


def _runs(status: Json, container: str) -> bool:
    return any(
        each["name"] == container and "running" in each["state"]
        for each in status.get("containerStatuses", ())
    )


def _pod_port(cloud: LocalKube, request: KubeRequest, pod: Json) -> HttpAnswer:
    ports = request.query.get("ports", ())
    if len(ports) != 1 or not ports[0].isdigit():
        raise bad_request('query parameter "ports" is required: one port')
    chosen = _chosen(request, (forwards.POD,))
    if chosen is None:
        raise bad_request("unable to upgrade: websocket protocols are not known")
    machine = cloud.machine(pod["metadata"]["uid"])
    assert machine is not None
    port = int(ports[0])
    handler = cloud.handler_of(pod)
    refused = (
        'failed to execute portforward in network namespace "/var/run/netns/cni-1": failed to '
        f'connect to localhost:{port} inside namespace "{pod["metadata"]["uid"]}": dial tcp4 '
        f"127.0.0.1:{port}: connect: connection refused"
    )

    def dial() -> socket.socket:
        if handler.startswith(_WALLED):
            raise OSError(refused)
        try:
            if machine.running is not None:
                dialled: socket.socket = machine.running.dial(port)
                return dialled
            return _dialled(cloud, pod, port)
        except OSError:
            raise OSError(refused) from None

    return _takes_over(cloud, PodPort(port, dial))


def _vm_port(cloud: LocalKube, request: KubeRequest, vmi: Json, port: int) -> HttpAnswer:
    interfaces = vmi["status"].get("interfaces") or ()
    if any(each["type"] == "Paused" for each in vmi["status"].get("conditions") or ()):
        raise conflict("virtualmachineinstance", vmi["metadata"]["name"], "VMI is paused")
    if not interfaces or not interfaces[0].get("ipAddress"):
        raise bad_request("no network interfaces are present")
    chosen = _chosen(request, (forwards.KUBEVIRT,)) or ""
    machine = cloud.machine(vmi["metadata"]["uid"])
    assert machine is not None
    try:
        if machine.body is not None:
            far = socket.create_connection((machine.body.guest.address, port), 10)
        else:
            far = _dialled(cloud, vmi, port)
    except OSError as error:
        text = f"Internal error occurred: dialing VM: {error}"
        raise KubeRefusal(500, text) from None
    return _takes_over(cloud, RawStream(chosen, far))


def _console(cloud: LocalKube, request: KubeRequest, vmi: Json) -> HttpAnswer:
    if vmi["status"]["phase"] != "Running":
        name = vmi["metadata"]["name"]
        raise conflict("virtualmachineinstance.kubevirt.io", name, "VMI is not running")
    chosen = _chosen(request, (forwards.KUBEVIRT,)) or ""
    machine = cloud.machine(vmi["metadata"]["uid"])
    assert machine is not None
    return _takes_over(cloud, ConsoleStream(chosen, lambda: machine.output))


def _dialled(cloud: LocalKube, shown: Json, port: int) -> socket.socket:
    if cloud.ports is None:
        raise ConnectionRefusedError("connect: connection refused")
    machine = cloud.machine(shown["metadata"]["uid"])
    assert machine is not None
    return cloud.ports(machine, port)


def _chosen(request: KubeRequest, spoken: tuple[str, ...]) -> str | None:
    """The subprotocol; None: none that is offered is spoken. Raises `KubeRefusal`."""
    if request.headers.get("upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    offered = request.headers.get("sec-websocket-protocol", "").replace(",", " ").split()
    return next((each for each in spoken if each in offered), None)


def _takes_over(cloud: LocalKube, stream: Stream) -> HttpAnswer:
    return HttpAnswer(101, takes_over=cloud.streamed(stream))


def streamed(streams: set[Stream], stream: Stream) -> Callable[[BaseHTTPRequestHandler], None]:
    """Serve a stream, and know it as long as it is open."""

    def serve(handler: BaseHTTPRequestHandler) -> None:
        streams.add(stream)
        try:
            stream.serve(handler)
        finally:
            streams.discard(stream)

    return serve
