"""What the proxy of an allow-list costs: bytes a second and new connections, beside a direct
connection on the loopback.

    python bench/allow_list.py [--mib 512] [--pairs 5] [--connections 60]

Server, proxy and client are a process each. The proxy is the one of a VM, without its namespaces;
in a VM QEMU's own network and pasta are on the way too. Runs are interleaved, medians compared.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.client_hellos import real
from vmrunner.model import AllowList
from vmrunner.providers.qemu.allow import proxy
from vmrunner.providers.qemu.allow.lookup import Lookup

NAME = "packages.example.org"
HELLO = real(NAME)
HOME, THERE = "127.0.0.1", "127.0.0.2"
MIB = 1 << 20
PIECE = bytes(256 * 1024)


def child(work: Callable[[], object]) -> int:
    """Do it in a process of its own, until that is ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def serve(server: socket.socket, size: int) -> None:
    """Send so many bytes to a client that sends a hello and then `+`; else one."""
    while True:
        connection, _ = server.accept()
        with connection:
            request = connection.recv(65536)
            remaining = size if request.endswith(b"+") else 1
            while remaining > 0:
                remaining -= connection.send(PIECE[: min(remaining, len(PIECE))])


def relay(port: int) -> None:
    """Be the proxy, for a name that the server has."""

    async def addresses(*_: object) -> tuple[str, ...]:
        return (THERE,)

    Lookup.addresses = addresses  # type: ignore[method-assign]
    proxy.DNS = 0  # type: ignore[misc]
    proxy.NEW = proxy.Limit(burst=1e9, rate=1e9)  # type: ignore[misc]
    proxy.run(AllowList((f"{NAME}:{port}",)), HOME, proxy.ListenSockets(HOME, [port]))


def fetched(host: str, port: int, more: bytes = b"") -> int:
    with socket.create_connection((host, port)) as sock:
        sock.sendall(HELLO + more)
        total = 0
        while data := sock.recv(MIB):
            total += len(data)
        return total


def rate(host: str, port: int, size: int) -> float:
    """MB/s of one transfer."""
    began = time.perf_counter()
    assert fetched(host, port, b"+") == size
    return size / (time.perf_counter() - began) / 1e6


def pause(host: str, port: int, count: int) -> float:
    """Milliseconds of a connection that asks for a byte."""
    began = time.perf_counter()
    for _ in range(count):
        assert fetched(host, port) == 1
    return (time.perf_counter() - began) / count * 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--connections", type=int, default=60)
    options = parser.parse_args()
    size = options.mib * MIB
    with socket.create_server((THERE, 0)) as server:
        port = server.getsockname()[1]
        children = [child(lambda: serve(server, size)), child(lambda: relay(port))]
        try:
            ways = {"by the proxy": HOME, "direct": THERE}
            while True:
                try:
                    fetched(HOME, port)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            pauses: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(options.pairs):
                for way, host in ways.items():
                    rates[way].append(rate(host, port, size))
                    pauses[way].append(pause(host, port, options.connections))
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    table = Table("", "MB/s", "ms a connection")
    for way in ways:
        table.add_row(
            way, f"{statistics.median(rates[way]):.0f}", f"{statistics.median(pauses[way]):.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
