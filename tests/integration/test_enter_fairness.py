"""VMs that hold up whoever enters them, and nobody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.entered import ENTER, Entered, entered
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Proxy, Sshd, wait_for
from vmrunner.server import entry_threads
from vmrunner.server.routes.ports import PROTOCOL

pytestmark = pytest.mark.timeout(120)
THEIRS = {"team": "b"}


@pytest.fixture
def world(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entered]:
    monkeypatch.setattr(entry_threads, "EACH", 2)
    with entered(tmp_path, sshd, monkeypatch) as found:
        yield found


def asking(world: Entered, path: str, token: str) -> socket.socket:
    """A connection that asks for a WebSocket, and waits for no answer."""
    place = world.http.url.removeprefix("http://")
    host, _, port = place.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = [
        f"GET /api/v1/{path} HTTP/1.1", f"Host: {place}", f"Authorization: Bearer {token}",
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Sec-WebSocket-Protocol: {PROTOCOL}",
    ]  # fmt: skip
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def test_a_silent_vm_holds_up_no_other(world: Entered, sshd: Sshd) -> None:
    near, world.proxy = world.proxy, Proxy(sshd.address)
    hostile = world.running("b-2", tenant='{"team": "b"}', labels=THEIRS)
    token = world.http.token(ENTER, labels=THEIRS)
    slots = world.http.listener.app.state.port_slots
    with ExitStack() as stack:
        stack.callback(near.close)
        path = f"builds/{hostile}/ports/9"
        first = stack.enter_context(asking(world, path, token))
        assert first.recv(64).startswith(b"HTTP/1.1 "), "its connection is open"
        world.proxy.stalled.set()
        stack.callback(world.proxy.stalled.clear)
        for _ in range(12):
            stack.enter_context(asking(world, path, token))
        wait_for(lambda: slots._busy.total() == 12)
        with world.terminal("echo", "in") as terminal:
            assert terminal.end()["code"] == 0
