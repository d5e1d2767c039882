"""Streams of the local Kubernetes: exec into pods, ports of VMIs and of pods, consoles, logs.
Sources are of kubernetes 1.34.2 and of KubeVirt."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import paramiko
import pytest
from vmrunner_localclouds.kube import KubeMachine
from vmrunner_localclouds.kube.kinds import PODS
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.kube import KubeApi, pod, token_of, vmi
from tests.support.kube import kube as kube  # the fixture
from tests.support.sshd import InetdSshd
from vmrunner.lib.websocket_channel import EXEC, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address

V5, V4, PLAIN = "v5.channel.k8s.io", "v4.channel.k8s.io", "plain.kubevirt.io"
VMI = "virtualmachineinstances.subresources.kubevirt.io"

pytestmark = pytest.mark.standin  # whoever runs pods has a node


class Stream:
    """A client's end. One thread reads and writes: a TLS connection of Python 3.13.5 and before
    loses bytes where one thread reads while another writes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: ClientConnection) -> None:
        self._loop = loop
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    def send(self, data: bytes) -> None:
        self._loop.run_until_complete(self._connection.send(data))

    def recv(self) -> bytes:
        message = self._loop.run_until_complete(asyncio.wait_for(self._connection.recv(), 60))
        assert isinstance(message, bytes)
        return message


@contextmanager
def opened(kube: KubeApi, path: str, protocols: Sequence[str] = (V5,)) -> Iterator[Stream]:
    assert kube.authority is not None
    tls = ssl.create_default_context(cadata=kube.authority.decode())

    async def begin() -> ClientConnection:
        return await connect(
            kube.url.replace("https:", "wss:") + path,
            ssl=tls,
            subprotocols=[Subprotocol(each) for each in protocols] or None,
            additional_headers={"Authorization": f"Bearer {kube.token}"},
            compression=None,
            max_size=None,
            proxy=None,
        )

    with asyncio.Runner() as runner:
        connection = runner.run(begin())
        try:
            yield Stream(runner.get_loop(), connection)
        finally:
            runner.run(connection.close())


def exec_path(kube: KubeApi, *command: str, container: str = "build", **more: str) -> str:
    query: dict[str, Any] = {"container": container, "command": command, **more}
    query |= {name: "true" for name in ("stdin", "stdout", "stderr") if name not in more}
    return f"{kube.path('pods', 'vm-1', 'exec')}?{urlencode(query, doseq=True)}"


def run_programs(kube: KubeApi) -> None:
    """Run what an exec stream names, here."""

    def start(_: KubeMachine, __: str, command: Sequence[str]) -> Any:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    kube.local.programs = start


def heard(connection: Stream) -> tuple[bytes, bytes, dict[str, Any]]:
    """Output, errors and the last Status, to the end of the stream."""
    streams = {1: b"", 2: b"", 3: b""}
    try:
        while True:
            message = connection.recv()
            streams[message[0]] += message[1:]
    except ConnectionClosed:
        pass
    return streams[1], streams[2], json.loads(streams[3] or b"{}")


@pytest.mark.parametrize("protocol", [V5, V4])
def test_a_program_runs_in_a_pod(kube: KubeApi, protocol: str) -> None:
    """streamtranslator.go, remotecommand/websocket.go: streams 1 and 2, then a Status on 3."""
    run_programs(kube)
    kube.create(pod())
    words = ("sh", "-c", "echo out; echo err >&2; exit 7")
    with opened(kube, exec_path(kube, *words), (protocol,)) as connection:
        assert connection.subprotocol == protocol
        out, err, status = heard(connection)
    assert (out, err) == (b"out\n", b"err\n")
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


def test_v5_ends_one_way(kube: KubeApi) -> None:
    """apimachinery util/httpstream/wsstream/conn.go: 255 and the stream; all comes back."""
    run_programs(kube)
    kube.create(pod())
    data = bytes(range(256)) * 4096
    with opened(kube, exec_path(kube, "cat")) as connection:
        for at in range(0, len(data), 30_000):
            connection.send(b"\0" + data[at : at + 30_000])
        connection.send(b"\xff\0")
        out, _, status = heard(connection)
    assert out == data
    assert status == {"metadata": {}, "status": "Success"}


def test_v4_knows_no_end_of_one_way(kube: KubeApi) -> None:
    run_programs(kube)
    kube.create(pod())
    with opened(kube, exec_path(kube, "cat"), (V4,)) as connection:
        connection.send(b"\xff\0")
        connection.send(b"\0more")
        messages = [connection.recv() for _ in range(2)]
        assert messages == [b"\1", b"\1more"]
        connection.send(b"\0again")
        assert connection.recv() == b"\1again"


def test_streams_that_are_not_wanted_carry_nothing(kube: KubeApi) -> None:
    """A stream that the query does not name is ignored: remotecommand/websocket.go."""
    run_programs(kube)
    kube.create(pod())
    words = ("sh", "-c", "cat; echo out; echo err >&2")
    path = exec_path(kube, *words, stdin="false", stderr="false")
    with opened(kube, path) as connection:
        out, err, status = heard(connection)
    assert (out, err, status["status"]) == (b"out\n", b"", "Success")


@pytest.mark.parametrize("protocols", [(), ("v3.channel.k8s.io",), ("portforward.k8s.io",)])
def test_other_protocols_are_refused(kube: KubeApi, protocols: tuple[str, ...]) -> None:
    """apimachinery util/httpstream/wsstream/conn.go `handshake`."""
    kube.create(pod())
    with (
        pytest.raises(InvalidStatus) as refused,
        opened(kube, exec_path(kube, "true"), protocols),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_who_does_not_upgrade_is_refused(kube: KubeApi) -> None:
    kube.create(pod())
    assert kube.ask("GET", exec_path(kube, "true")).status == 400


@pytest.mark.parametrize(
    ("container", "command", "status"), [("other", ("true",), 400), ("build", (), 400)]
)
def test_what_is_no_exec_of_a_pod(
    kube: KubeApi, container: str, command: tuple[str, ...], status: int
) -> None:
    """pkg/registry/core/pod/strategy.go `streamLocation`."""
    kube.create(pod())
    with (
        pytest.raises(InvalidStatus) as refused,
        opened(kube, exec_path(kube, *command, container=container)),
    ):
        pass
    assert refused.value.response.status_code == status


def test_an_ended_container_is_told_in_a_status(kube: KubeApi) -> None:
    """The upgrade has happened when the kubelet refuses: streamtranslator.go `writeStatus`."""
    run_programs(kube)
    kube.create(pod())
    kube.local.machines[0].exit("build", 1)
    with opened(kube, exec_path(kube, "true")) as connection:
        _, _, status = heard(connection)
    assert 'container not found ("build")' in status["message"]
    kube.local.lose_node()
    with opened(kube, exec_path(kube, "true", container="vmrunner")) as connection:
        _, _, status = heard(connection)
    assert "i/o timeout" in status["message"]


def test_a_stream_can_be_cut_off(kube: KubeApi) -> None:
    run_programs(kube)
    kube.create(pod())
    with opened(kube, exec_path(kube, "cat")) as connection:
        connection.send(b"\0here")
        assert [connection.recv(), connection.recv()] == [b"\1", b"\1here"]
        kube.local.cut_streams()
        with pytest.raises(ConnectionClosed):
            connection.recv()


def test_newer_servers_ask_for_create_too(kube: KubeApi) -> None:
    """1.35: `AuthorizePodWebsocketUpgradeCreatePermission`."""
    verbs = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]
    kube.token = token_of(kube, verbs)
    run_programs(kube)
    kube.local.add_object(PODS, pod(), kube.namespace)
    with opened(kube, exec_path(kube, "true")) as connection:
        assert heard(connection)[2]["status"] == "Success"
    kube.local.access.asks_create = True
    with pytest.raises(InvalidStatus) as refused, opened(kube, exec_path(kube, "true")):
        pass
    assert refused.value.response.status_code == 403


class Echo:
    """A server that greets, echoes, and ends when its client has."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        near, _ = self._listener.accept()
        with near:
            near.sendall(b"hello")
            while data := near.recv(1 << 16):
                if data == b"bye":
                    break
                near.sendall(data)
        self.ended.set()

    def dial(self, _: KubeMachine, port: int) -> socket.socket:
        assert port == 22
        return socket.create_connection(self.address)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


def test_the_port_of_a_vmi_is_raw(kube: KubeApi, echo: Echo) -> None:
    """kubevirt pkg/virt-api/rest/streamer.go: plain bytes, and both sides are closed at the first
    end of either."""
    kube.local.ports = echo.dial
    kube.create(vmi())
    path = kube.path(VMI, "vm-1", "portforward/22/tcp")
    with opened(kube, path, (PLAIN,)) as connection:
        assert connection.subprotocol == PLAIN
        assert connection.recv() == b"hello"
        connection.send(b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += connection.recv()
        connection.send(b"bye")
        with pytest.raises(ConnectionClosed):
            connection.recv()
    assert echo.ended.wait(10)


def test_the_end_of_a_client_is_the_vms_too(kube: KubeApi, echo: Echo) -> None:
    kube.local.ports = echo.dial
    kube.create(vmi())
    with opened(kube, kube.path(VMI, "vm-1", "portforward/22/tcp"), (PLAIN,)) as connection:
        assert connection.recv() == b"hello"
    assert echo.ended.wait(10)


def test_a_vmi_without_an_address_has_no_port(kube: KubeApi) -> None:
    """kubevirt pkg/virt-api/rest/dialers.go."""
    kube.local.virt.seconds = 10
    kube.create(vmi())
    path = kube.path(VMI, "vm-1", "portforward/22/tcp")
    statuses = []
    for _ in range(2):
        with pytest.raises(InvalidStatus) as refused, opened(kube, path, (PLAIN,)):
            pass
        statuses.append(refused.value.response.status_code)
        kube.clock.advance(10)
    assert statuses == [400, 500]  # nothing listens


def test_a_console_shows_what_was_written(kube: KubeApi) -> None:
    kube.create(vmi())
    (machine,) = kube.local.machines
    machine.serial = b"booting\n"
    with opened(kube, kube.path(VMI, "vm-1", "console"), (PLAIN,)) as connection:
        assert connection.recv() == b"booting\n"
        machine.serial += b"login:"
        assert connection.recv() == b"login:"


@pytest.mark.parametrize("runtime", ["", "gvisor", "kata-qemu"])
def test_a_pods_port_is_reached_without_a_wall_alone(
    kube: KubeApi, echo: Echo, runtime: str
) -> None:
    """kubelet cri/streaming/portforward/websocket.go; containerd#6638, gvisor#3811,
    kata-containers#10843: the node dials in the network that such a pod has not."""
    kube.local.ports = echo.dial
    kube.create(pod(**({"runtimeClassName": runtime} if runtime else {})))
    path = f"{kube.path('pods', 'vm-1', 'portforward')}?ports=22"
    with opened(kube, path, (V4,)) as connection:
        heads = [connection.recv(), connection.recv()]
        assert heads == [b"\0\x16\0", b"\1\x16\0"]
        answer = connection.recv()
        if runtime:
            assert (answer[:1], b"connection refused" in answer) == (b"\1", True)
        else:
            assert answer == b"\0hello"


def test_the_log_of_a_container(kube: KubeApi) -> None:
    """pkg/registry/core/pod/rest/log.go."""
    kube.create(pod())
    kube.local.machines[0].logs["build"] = b"one\ntwo\nthree\n"
    path = kube.path("pods", "vm-1", "log")
    assert kube.ask("GET", path, container="build", tailLines=2).body == "two\nthree\n"
    assert kube.ask("GET", path, container="build", limitBytes=5).body == "one\nt"
    assert kube.ask("GET", path).status == 400  # of two containers
    assert kube.ask("GET", path, container="other").status == 400


def test_ssh_goes_through_an_exec_stream(kube: KubeApi, tmp_path: Path) -> None:
    """As a driver's channel does it: `sshd -i` for each stream, and nothing listens."""
    served = InetdSshd(tmp_path)
    kube.local.programs = served.start
    kube.create(pod())

    def target(_: Address) -> WebSocketTarget:
        assert kube.authority is not None
        return WebSocketTarget(
            url=kube.url.replace("https:", "wss:")
            + exec_path(kube, "/usr/lib/vmrunner/sshd", container="vmrunner"),
            subprotocols=EXEC,
            headers={"Authorization": f"Bearer {kube.token}"},
            trusted=ssl.create_default_context(cadata=kube.authority.decode()),
            proxy=None,
        )

    sock = WebSocketChannel(target).open(Address("vm-1", 22))
    sock.setblocking(True)
    with sock, paramiko.Transport(sock) as transport:
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(served.access.user_private))
        transport.connect(username=served.user, pkey=key)
        session = transport.open_session()
        session.exec_command("cat; exit 7")
        session.sendall(b"x" * 300_000)
        session.shutdown_write()
        got = b""
        while piece := session.recv(1 << 16):
            got += piece
        assert (got, session.recv_exit_status()) == (b"x" * 300_000, 7)
