"""The proxy's bounds, in a thread of this process and on the loopback alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.client_hellos import real
from vmrunner.lib.token_bucket import Limit
from vmrunner.model import AllowList
from vmrunner.providers.qemu.allow import proxy
from vmrunner.providers.qemu.allow.lookup import Lookup

NAME = "packages.example.org"
HELLO = real(NAME)
HOME, THERE = "127.0.0.1", "127.0.0.2"
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server of every name: it sends back what it hears."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One that hears no end."""
    writer.write(await reader.read(65536))
    await asyncio.Event().wait()


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, server: Server = echo) -> Iterator[int]:
    """Yields the proxy's port, which is the server's too, at another address."""

    async def addresses(*_: object) -> tuple[str, ...]:
        return (THERE,)

    monkeypatch.setattr(Lookup, "addresses", addresses)
    loop = asyncio.new_event_loop()
    with (
        socket.create_server((THERE, 0)) as outside,
        socket.create_server((HOME, outside.getsockname()[1])) as here,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as questions,
    ):
        port = outside.getsockname()[1]
        questions.bind((HOME, 0))
        for closable in (outside, here, questions):
            closable.setblocking(False)
        sockets: Any = SimpleNamespace(address=HOME, questions=questions, servers={port: here})

        tasks: list[asyncio.Task[None] | None] = []  # the loop keeps none of deaf ones alive

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            await server(reader, writer)

        async def serve() -> None:
            listening = await asyncio.start_server(served, sock=outside)
            try:
                held = proxy.AllowProxy(AllowList((f"{NAME}:{port}",)), HOME)
                await held.serve(sockets)
            finally:
                listening.close()

        serving = loop.create_task(serve())

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(asyncio.wait([serving]))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield port
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()


@contextlib.contextmanager
def dialled(port: int, sent: bytes = HELLO) -> Iterator[socket.socket]:
    with socket.create_connection((HOME, port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(sent)
        yield sock


def test_who_is_one_too_many_waits_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "CONNECTIONS", 2)
    with serving(monkeypatch) as port, dialled(port) as first, dialled(port) as second:
        assert first.recv(5) == second.recv(5) == HELLO[:5]
        with dialled(port) as third:
            third.settimeout(0.2)
            with pytest.raises(TimeoutError):
                third.recv(5)
            first.close()
            third.settimeout(20)
            assert third.recv(5) == HELLO[:5]


def test_who_says_nothing_loses_his_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "CONNECTIONS", 1)
    monkeypatch.setattr(proxy, "_FIRST", 0.05)
    with serving(monkeypatch) as port, dialled(port, b"") as silent:
        assert silent.recv(100) == proxy.FAILED
        with dialled(port) as next_one:
            assert next_one.recv(5) == HELLO[:5]


def test_a_host_that_is_away_is_not_called_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads "denied" looks for the mistake in his list."""
    with serving(monkeypatch) as port:

        async def nobody(*_: object) -> tuple[str, ...]:
            return ("127.0.0.3",)

        monkeypatch.setattr(Lookup, "addresses", nobody)
        for name, alert in ((NAME, proxy.FAILED), ("evil.example.com", proxy.DENIED)):
            with dialled(port, real(name)) as sock:
                assert sock.recv(100) == alert


def test_who_hung_up_loses_his_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server never does."""
    monkeypatch.setattr(proxy, "CONNECTIONS", 1)
    monkeypatch.setattr(proxy, "_HALF", 0.05)
    with serving(monkeypatch, deaf) as port:
        for _ in range(2):
            with dialled(port) as sock:
                assert sock.recv(5) == HELLO[:5]


def test_a_hello_in_a_thousand_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would be looked at with all before it."""
    monkeypatch.setattr(proxy, "_READS", 1)
    with serving(monkeypatch) as port, dialled(port, HELLO[:9]) as sock:
        assert sock.recv(100) == proxy.DENIED


def test_new_connections_come_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "NEW", Limit(burst=2, rate=1e-6))
    with serving(monkeypatch) as port, dialled(port) as first, dialled(port) as second:
        assert first.recv(5) == second.recv(5) == HELLO[:5]
        with dialled(port) as third:
            third.settimeout(0.2)
            with pytest.raises(TimeoutError):
                third.recv(5)


def test_bytes_go_both_ways_and_ends_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = HELLO + bytes(1 << 20)
    with serving(monkeypatch) as port, dialled(port, b"") as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        heard = b""
        while piece := sock.recv(1 << 16):
            heard += piece
        sender.join()
    assert heard == data
