"""Ten thousand frames of a hostile caller: nothing grows, nothing stays, and others are served."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.support.entered import PROTOCOL, Entered, EnteredTerminal, entered, send
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Sshd, wait_for
from vmrunner.server import connections, entered_streams, websocket_connections
from vmrunner.server.websocket_connections import FRAME, PIECES, WAITING

pytestmark = pytest.mark.timeout(120)
MIB = 1 << 20
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
SOME = {"type": "start", "command": ["sleep", "600"]}


@pytest.fixture
def world(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        yield found
        state = found.http.listener.app.state
        wait_for(lambda: not state.terminal_slots._busy)
        limits = list(state.entry_threads._by_build.values())
        wait_for(lambda: not any(limit.borrowed_tokens for limit in limits))
        assert found.http.client("").get("/healthz").status_code == 200


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, size: int | None = None) -> bytes:
    """A masked frame, its mask being zeros; it may say another size."""
    length = len(data) if size is None else size
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", length)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", length)
    return head + bytes(4) + data


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def closed(connection: ClientConnection) -> int | None:
    """The code with which the server closes it."""
    try:
        while True:
            connection.recv(timeout=30)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


@pytest.mark.parametrize(
    ("raw", "codes"),
    [
        (frame(TEXT, b"no json"), {1003}),
        (frame(TEXT, b"[1]"), {1003}),
        (frame(TEXT, b'{"type": 1}'), {1003}),
        (frame(TEXT, b'{"a":' * 600 + b"1" + b"}" * 600), {1003}),
        (frame(TEXT, b"x" * 5000), {1009}),
        (frame(TEXT, b'{"type": "resize", "columns": 0, "rows": 1}'), {4410}),
        (frame(TEXT, b'{"type": "resize", "columns": 1e9, "rows": 1, "x": 1}'), {4410}),
        (frame(TEXT, b'{"type": "signal", "signal": "NOPE"}'), {4410}),
        (frame(TEXT, b"\xff\xfe"), {1007}),
        (frame(BINARY, b"x" * 10, size=1 << 40), {1009}),
        (frame(BINARY, b"x" * 10, size=FRAME + 1), {1009}),
        (frame(3), {1002}),
        (frame(PING, b"x" * 126), {1002}),
        (b"\x82\x01x", {1002}),  # without a mask
        (b"\xf2" + frame(BINARY, b"x")[1:], {1002}),
        (frame(0, b"x"), {1002}),
        (frame(BINARY, fin=False) + frame(0, fin=False) * (PIECES + 1), {1008}),
        (frame(BINARY, b"x") * (WAITING * 4), {1008}),
        (frame(CLOSE, b"\x03"), {1002}),
    ],
)
def test_a_frame_that_is_none_ends_its_own_terminal(
    world: Entered, raw: bytes, codes: set[int]
) -> None:
    with world.terminal("sleep", "600") as terminal:
        terminal.until(lambda: terminal.frames)
        with contextlib.suppress(OSError):
            terminal.socket.socket.sendall(raw)
        assert closed(terminal.socket) in codes


@pytest.mark.parametrize(
    "first",
    [
        b"", b"[]", b"{}", b'{"type": "resize", "columns": 1, "rows": 1}',
        json.dumps(SOME | {"command": ["a\0b"]}).encode(),
        json.dumps(SOME | {"command": [""]}).encode(),
        json.dumps(SOME | {"command": "sh"}).encode(),
        json.dumps(SOME | {"env": {"A=B": "x"}}).encode(),
        json.dumps(SOME | {"cwd": "../x"}).encode(),
        json.dumps(SOME | {"columns": 70_000}).encode(),
        json.dumps(SOME | {"unknown": 1}).encode(),
        json.dumps(SOME | {"tty": "yes"}).encode(),
        b'{"type": "start", "command": ["\\ud800"]}',
        json.dumps(SOME | {"command": ["x" * 140_000]}).encode(),
        json.dumps(SOME | {"command": ["x" * 100] * 10_001}).encode(),
    ],
)  # fmt: skip
def test_a_first_frame_that_is_none_starts_nothing(world: Entered, first: bytes) -> None:
    with world.socket() as connection:
        connection.send(first.decode())
        assert closed(connection) in (1003, 1009, 4410)
    assert world.proxy.connections == 0
    assert world.ledger.actions.latest() == []


def test_who_begins_with_nothing_is_let_go(world: Entered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.server.routes.terminals.START_TIMEOUT", 0.2)
    with world.socket() as connection:
        assert closed(connection) == 1008
    with world.socket() as connection:
        connection.send(b"bytes first")
        assert closed(connection) == 1003


def test_ten_thousand_frames_leave_nothing_behind(
    world: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fast as they are taken: who sends a flood is closed, which another test shows."""
    monkeypatch.setattr(entered_streams, "FRAMES_SPAN", 0.05)
    unknown = frame(TEXT, b'{"type": "of-a-later-version"}')
    kinds = [unknown, frame(BINARY), frame(BINARY, b"x"), frame(PING, b"x" * 125)]
    with world.terminal("sh", "-c", "stty raw -echo; echo on; exec cat") as terminal:
        terminal.shows(b"on")
        before = resident()
        wire = terminal.socket.socket
        for sent in range(25, 2501, 25):
            for kind in kinds:
                wire.sendall(kind * 25)
            terminal.shows(b"x" * sent)  # so all before were taken
        send(terminal.socket, type="resize", columns=40, rows=20)
        terminal.type("still here")
        terminal.shows(b"still here")
        assert resident() - before < 32 * MIB


def test_who_takes_nothing_has_little_kept_for_him(
    world: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood from the VM, and pings whose answers nobody reads."""
    monkeypatch.setattr(connections, "STALLED", 2.0)
    monkeypatch.setattr(websocket_connections, "STALLED", 2.0)
    with world.terminal("sh", "-c", "echo $$; exec yes") as terminal:
        terminal.shows(b"\n")
        pid = int(terminal.shown.split()[0])
        before = resident()
        wire = terminal.socket.socket
        wire.settimeout(0.5)
        with contextlib.suppress(TimeoutError, OSError):
            for _ in range(4000):
                wire.sendall(frame(PING, b"x" * 125) * 100)
        assert resident() - before < 48 * MIB
        wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_who_takes_no_answer_to_pings_is_read_no_more(world: Entered) -> None:
    """A caller by hand: a library takes them."""
    listener = world.http.listener
    request = (
        "GET /api/v1/builds/b-1/terminal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nAuthorization: Bearer {world.token()}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    )
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", listener.port))
        wire.sendall(request.encode() + frame(TEXT, json.dumps(SOME).encode()))
        assert wire.recv(12) == b"HTTP/1.1 101"
        wire.settimeout(2)
        pings = frame(PING, b"x" * 125) * 100
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 32 * MIB:
                wire.sendall(pings)
                sent += len(pings)
    assert sent < 32 * MIB


def test_a_half_closed_caller_is_let_go(world: Entered) -> None:
    with world.terminal("sh", "-c", "echo $$; exec sleep 600") as terminal:
        terminal.shows(b"\n")
        pid = int(terminal.shown.split()[0])
        terminal.socket.socket.shutdown(socket.SHUT_WR)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_a_caller_that_answers_no_ping_is_let_go(
    world: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.http.listener._server.config, "ws_ping_interval", 0.2)
    monkeypatch.setattr(world.http.listener._server.config, "ws_ping_timeout", 0.3)
    with world.terminal("sh", "-c", "echo $$; exec sleep 600") as terminal:
        terminal.shows(b"\n")
        pid = int(terminal.shown.split()[0])
        found: EnteredTerminal = terminal
        found.socket.protocol.receive_data = lambda _: None  # type: ignore[method-assign]
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
