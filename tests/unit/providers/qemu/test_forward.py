"""The way to a local VM's sshd: bytes there and back, and shut until somebody listens."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sshd import wait_for
from vmrunner.lib import resources, unix_sockets
from vmrunner.providers.qemu import command_line, jail, network
from vmrunner.providers.qemu.console import Console
from vmrunner.providers.qemu.forward import Forwarder
from vmrunner.providers.qemu.jail import JailSpec
from vmrunner.providers.qemu.keeper import Keeper


def test_bytes_are_forwarded_whole_and_ends_one_by_one(tmp_path: Path) -> None:
    """As ssh and scp do: a lot one way, an end, then the answer."""
    data = os.urandom(3 << 20)
    with (
        unix_sockets.listen(tmp_path / "ssh") as listener,
        socket.create_server(("127.0.0.1", 0)) as target,
        selectors.DefaultSelector() as selector,
    ):
        Forwarder(selector, listener, target.getsockname())
        stop = threading.Event()

        def serve() -> None:
            connection, _ = target.accept()
            with connection:
                got = b""
                while piece := connection.recv(65536):
                    got += piece
                connection.sendall(got[::-1])

        def forward() -> None:
            while not stop.is_set():
                for key, mask in selector.select(0.05):
                    key.data(mask)

        threads = [threading.Thread(target=run) for run in (serve, forward)]
        for thread in threads:
            thread.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            unix_sockets.connect(client, tmp_path / "ssh")
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            back = b""
            while piece := client.recv(65536):
                back += piece
        stop.set()
        for thread in threads:
            thread.join(5)
        assert back == data[::-1]
        assert len(selector.get_map()) == 1, "only the listener is left"


def test_a_connection_that_breaks_at_both_ends_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vmrunner.providers.qemu.forward._CONNECTIONS", 2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as target,
        selectors.DefaultSelector() as selector,
        contextlib.ExitStack() as stack,
    ):
        Forwarder(selector, listener, target.getsockname())

        def connected() -> tuple[socket.socket, socket.socket]:
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            for key, mask in selector.select(10):
                key.data(mask)
            return client, stack.enter_context(target.accept()[0])

        for _ in range(3):
            for end in connected():
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()  # a reset
            wait_for(lambda: len(selector.select(0)) == 2)
            for key, mask in selector.select(0):
                key.data(mask)
        connected()
        connected()
        refused = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
        for key, mask in selector.select(10):
            key.data(mask)
        assert refused.recv(1) == b"", "more than two at once"
        for key in selector.get_map().values():
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


def test_a_shut_way_hangs_up_until_it_is_opened() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as target,
        selectors.DefaultSelector() as selector,
        contextlib.ExitStack() as stack,
    ):
        forwarder = Forwarder(selector, listener, target.getsockname(), shut=True)

        def client() -> socket.socket:
            made = socket.create_connection(listener.getsockname(), timeout=10)
            for key, mask in selector.select(10):
                key.data(mask)
            return stack.enter_context(made)

        assert client().recv(1) == b""
        target.setblocking(False)
        with pytest.raises(BlockingIOError):
            target.accept()
        target.settimeout(10)
        forwarder.open()
        client()
        target.accept()[0].close()
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


def test_the_way_is_opened_once_when_the_console_says_so(tmp_path: Path) -> None:
    opened: list[bytes] = []
    keeper = Keeper(tmp_path)
    keeper.console, keeper.announced = Console(tmp_path / "console.log"), True
    for piece in (b"[ 1.2] vmrunner: ssh", b" is u", b"p\r\n", b"vmrunner: ssh is up\r\n"):
        jailed: Any = SimpleNamespace(console=7, open=partial(opened.append, piece))
        keeper._heard(jailed, 7, piece)
    keeper.console.close()
    assert opened == [b"p\r\n"]


LYING = JailSpec(
    qemu=["/bin/true"],
    pasta=None,
    tun=False,
    nft="/usr/sbin/nft",
    rules="",
    resolver=None,
    user=None,
    images=[],
    hide=[],
    limits={},
    announced=True,
)


def test_the_keeper_tells_what_to_deny_and_when_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    rules: list[tuple[str, str, int | None]] = []
    opened: list[str] = []

    def load(program: str, text: str, *, space: int | None) -> None:
        rules.append((program, text, space))

    monkeypatch.setattr(network, "load", load)
    way: Any = SimpleNamespace(open=partial(opened.append, "opened"))
    reader, writer = os.pipe()
    jailed = jail.Jail(pid=0, life=writer, news=-1, console=-1, errors=-1)
    jailed.deny(["5.6.7.8/32", "9.0.0.0/8"])
    jailed.open()
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        for line in lines:
            assert rules or not opened
            jail._heed(line, LYING, way, 17)
    ((program, text, space),) = rules
    assert program == "/usr/sbin/nft"
    assert "denied { 5.6.7.8/32, 9.0.0.0/8 }" in text
    assert space == 17, "the network that a proxy goes out by"
    assert opened == ["opened"]


def test_a_console_that_never_says_so_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    us = os.getpid()  # stands in for QEMU, whose end the jail waits for
    monkeypatch.setattr(jail, "_UNANNOUNCED", 0.2)
    monkeypatch.setattr(Forwarder, "open", lambda _: opened.append("opened"))
    monkeypatch.setattr(jail, "_reaped", lambda: [(us, 0)] if opened else [])
    life, end = os.pipe()
    reported: list[dict[str, int]] = []
    ends: Any = SimpleNamespace(life=life, say=lambda **word: reported.append(word))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        jail._wait(LYING, ends, listener, us, {}, None)
    os.close(life)
    os.close(end)
    assert (opened, reported) == (["opened"], [{"exit": 0}])


def test_the_image_says_what_the_keeper_waits_for() -> None:
    script = (resources.path("packer") / "scripts/10-system.sh").read_bytes()
    assert b"echo '" + command_line.ANNOUNCED + b"'" in script
