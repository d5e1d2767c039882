"""Ports of a sandbox over a server: WebSockets with its bytes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import vmrunner
from tests.integration.test_http_terminals import refused
from tests.support.entered import ENTER, Entered, entered, send
from tests.support.entered_server import node
from tests.support.sandboxes import SandboxWorld
from tests.support.sandboxes import sandbox as sandbox  # the fixture
from tests.support.session_world import sshd as sshd
from tests.support.session_world import world as world
from tests.support.sshd import Proxy, Sshd, free_port, wait_for
from vmrunner.model import Address, TokenScope
from vmrunner.server import entries, port_connections
from vmrunner.server.routes.ports import PROTOCOL

pytestmark = pytest.mark.timeout(120)
READ_TOO = ENTER | {TokenScope.READ}


@pytest.fixture
def served(
    tmp_path: Path, sandbox: SandboxWorld, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        found.running("b-2", sandbox_ttl=600.0, steps=())
        yield found


class Service:
    """A service in the sandbox, whose container is this host. Each connection is `talk`ed to."""

    def __init__(self, talk: str = "echo") -> None:
        self.talk = talk
        self.sent = 0
        self.open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.talk == "flood":
                connection.sendall(b"x" * 65536)
                self.sent += 65536
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.sendall(b"|end")
            connection.close()

    def close(self) -> None:
        self._listener.close()
        for connection in self.open:
            connection.close()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.close()


@contextlib.contextmanager
def port_of(
    served: Entered, port: int, kind: str = "sandboxes", **options: Any
) -> Iterator[ClientConnection]:
    path = f"{kind}/b-2/ports/{port}"
    with served.socket(path, subprotocols=[PROTOCOL], **options) as connection:
        yield connection


def received(connection: ClientConnection) -> tuple[bytes, list[dict[str, object]], int]:
    """All bytes and control frames up to the end, and the close code."""
    data, frames = b"", []
    try:
        while True:
            frame = connection.recv(timeout=30)
            if isinstance(frame, bytes):
                data += frame
            else:
                frames.append(json.loads(frame))
    except ConnectionClosed as error:
        return data, frames, error.rcvd.code if error.rcvd else 0


@pytest.mark.parametrize("kind", ["sandboxes", "builds"])
def test_bytes_of_a_port_go_both_ways(served: Entered, service: Service, kind: str) -> None:
    evil = bytes(range(256)) * 2000
    with port_of(served, service.port, kind) as connection:
        for start in range(0, len(evil), 1 << 16):
            connection.send(evil[start : start + (1 << 16)])
        send(connection, type="eof")
        data, frames, code = received(connection)
    assert data == evil + b"|end"
    assert (frames, code) == ([{"type": "eof"}], 1000)


def test_a_port_without_a_service_is_not_found(served: Entered) -> None:
    with port_of(served, free_port()) as connection:
        _, frames, code = received(connection)
    assert (frames[0]["status"], code) == (404, 4410)
    for word in ("0", "65536", "x", "-1", "1e3", "99999999"):
        found = refused(served, f"sandboxes/b-2/ports/{word}", subprotocols=[PROTOCOL])
        assert found["status"] == 422


def test_ports_of_a_vm_share_one_connection(
    served: Entered, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_connections, "KEPT_SECONDS", 0.2)
    monkeypatch.setattr(entries, "APART", 0.2)
    token = served.token()
    with contextlib.ExitStack() as stack:
        entered_ = [port_of(served, service.port, token=token) for _ in range(8)]
        open_ = [stack.enter_context(connection) for connection in entered_]
        for number, connection in enumerate(open_):
            connection.send(b"%d" % number)
        assert [connection.recv(timeout=20) for connection in open_] == [
            b"%d" % number for number in range(8)
        ]
        assert served.proxy.connections == 1
    wait_for(lambda: len(served.ledger.actions.latest()) > 1)
    end, begin = served.ledger.actions.latest()
    assert (begin.verb, begin.subject) == ("enter-port", "b-2")
    assert begin.detail == f"port {service.port}, from 127.0.0.1"
    assert (end.verb, end.detail.partition(",")[0]) == ("leave-port", f"port {service.port}")
    assert "8 B out, 8 B in" in end.detail
    wait_for(lambda: not served.http.listener.app.state.port_connections._shared)
    state = served.http.listener.app.state
    wait_for(lambda: not state.port_visits._visits and not state.port_slots._busy)


def test_who_reads_slowly_holds_the_port_back(served: Entered) -> None:
    service = Service("flood")
    with port_of(served, service.port) as connection:
        connection.recv(timeout=30)
        looks: list[int] = []

        def is_held() -> bool:
            looks.append(service.sent)
            return len(looks) >= 30 and len(set(looks[-30:])) == 1

        wait_for(is_held)
        assert service.sent < 24 << 20, "buffers of sockets, and little of ours"
        assert connection.recv(timeout=30)
    service.close()


def test_python_forwards_a_port_over_a_server(served: Entered, service: Service) -> None:
    token = served.token(scopes=READ_TOO)
    with contextlib.closing(vmrunner.Runner(url=served.http.url, token=token)) as runner:
        found = vmrunner.Sandbox.connect("b-2", runner=runner)
        with found.forward(service.port) as forward:
            assert repr(forward) == f"<PortForward {forward.url} to port {service.port}>"
            for text in (b"one", b"two" * 100_000):
                with socket.create_connection(forward.address, timeout=20) as local:
                    local.sendall(text)
                    local.shutdown(socket.SHUT_WR)
                    data = b""
                    while piece := local.recv(65536):
                        data += piece
                    assert data == text + b"|end"
        found.close()


def test_python_has_a_terminal_over_a_server(served: Entered) -> None:
    token = served.token(scopes=READ_TOO)
    with contextlib.closing(vmrunner.Runner(url=served.http.url, token=token)) as runner:
        found = vmrunner.Sandbox.connect("b-2", runner=runner)
        with found.terminal(["sh", "-i"], columns=101, rows=33, env={"A": "b c"}) as terminal:
            terminal.write('PS1=; stty size; echo "$A" $((40 + 2))\n')
            seen = b""
            while b"b c 42\r\n" not in seen:
                seen += terminal.read(timeout=60)
            assert b"33 101\r\n" in seen
            terminal.resize(80, 24)
            terminal.write("stty size; exit 7\n")
            assert terminal.wait(timeout=60) == 7
            assert b"24 80\r\n" in terminal.read()
        with pytest.raises(vmrunner.errors.NotFound, match="absent: not found"):
            found.terminal(["absent"])
        with found.terminal(["sleep", "600"]) as terminal:
            served.http.listener.close()
            with pytest.raises(vmrunner.errors.Conflict, match=r"stops|broke off"):
                terminal.read(timeout=30)
        found.close()


def test_a_port_comes_back_with_another_node(served: Entered, service: Service) -> None:
    """What is open ends with the node that carries it; what is opened next goes to the next one."""
    token = served.token(scopes=READ_TOO)
    node = Proxy(Address("127.0.0.1", served.http.listener.port))
    url = f"http://{node.address.host}:{node.address.port}"
    with contextlib.closing(vmrunner.Runner(url=url, token=token)) as runner:
        found = vmrunner.Sandbox.connect("b-2", runner=runner)
        with found.forward(service.port) as forward:
            with socket.create_connection(forward.address, timeout=20) as local:
                local.sendall(b"one")
                assert local.recv(3) == b"one"
                node.cut()
                assert local.recv(1) == b""
            with socket.create_connection(forward.address, timeout=20) as local:
                local.sendall(b"two")
                assert local.recv(3) == b"two"
        with found.terminal(["sleep", "600"]) as terminal:
            node.cut()
            with pytest.raises(vmrunner.errors.Conflict, match="broke off"):
                terminal.read(timeout=30)
        found.close()
    node.close()


def test_a_node_that_is_killed_ends_its_ports(
    tmp_path: Path, sandbox: SandboxWorld, service: Service
) -> None:
    """As by the kernel, amid a connection: it ends here too, and so does the next one."""
    with (
        node(tmp_path, sandbox.world.guest.run / "socket") as (process, url, token),
        contextlib.closing(vmrunner.Runner(url=url, token=token)) as runner,
    ):
        found = vmrunner.Sandbox.connect("b-2", runner=runner)
        with (
            found.forward(service.port) as forward,
            socket.create_connection(forward.address, timeout=20) as local,
        ):
            local.sendall(b"one")
            assert local.recv(3) == b"one"
            os.killpg(process.pid, signal.SIGKILL)
            assert local.recv(1) == b""
            with socket.create_connection(forward.address, timeout=20) as late:
                assert late.recv(1) == b""
        with pytest.raises(vmrunner.errors.VmrunnerError):
            found.terminal(["sleep", "600"])


def test_a_vm_of_another_host_names_its_node(served: Entered, service: Service) -> None:
    served.elsewhere.add("vm-b-2")
    path = f"sandboxes/b-2/ports/{service.port}"
    problem = refused(served, path, subprotocols=[PROTOCOL])
    assert problem["status"] == 409
    assert "only that host reaches it" in problem["detail"]
