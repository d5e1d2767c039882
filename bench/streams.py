"""What streams over WebSockets cost: the rate of one beside a bare relay of the same bytes, and
the threads and memory of many that are open.

    python bench/streams.py [--mib 256] [--streams 500]

The server, which speaks exec as an API server does, is a process of its own. The relay is the
library's own blocking client with a thread that writes into a socketpair: what a channel would be
at the least. Memory is RSS; the figures before the first stream are taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import connect
from websockets.typing import Subprotocol

sys.path.insert(0, str(Path(__file__).parent.parent))

from vmrunner.lib.websocket_channel import EXEC, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address

PIECE = 32 << 10  # bytes of a message, as an API server's copies have them
ROUNDS = 5
POD = Address("builds/vm-1")


async def served(connection: ServerConnection) -> None:
    """As much output as the path says, then a Status; without a figure nothing, for ever."""
    assert connection.request is not None
    size = int(connection.request.path.strip("/") or 0)
    await connection.send(b"\x01SSH-")
    if not size:
        await connection.wait_closed()
        return
    piece = b"\x01" + bytes(PIECE)
    for _ in range(size // PIECE):
        await connection.send(piece)
    await connection.send(b"\x03" + json.dumps({"status": "Success"}).encode())


async def server() -> None:
    names = [Subprotocol(name) for name in EXEC]
    async with serve(
        served, "127.0.0.1", 0, subprotocols=names, compression=None, ping_interval=None
    ) as made:
        print(next(iter(made.sockets)).getsockname()[1], flush=True)
        await made.serve_forever()


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def channel(url: str) -> WebSocketChannel:
    target = WebSocketTarget(url=url, subprotocols=EXEC, proxy=None)
    return WebSocketChannel(lambda _: target)


def by_channel(url: str) -> socket.socket:
    stream = channel(url).open(POD)
    stream.setblocking(True)
    return stream


def by_relay(url: str) -> socket.socket:
    near, far = socket.socketpair()

    def carry() -> None:
        names = [Subprotocol(name) for name in EXEC]
        with far, connect(url, subprotocols=names, compression=None, proxy=None) as connection:
            for message in connection:
                assert isinstance(message, bytes)
                if message[:1] == b"\x03":
                    return
                far.sendall(memoryview(message)[1:])

    threading.Thread(target=carry, daemon=True).start()
    return near


def rate(opened: Callable[[str], socket.socket], url: str, size: int) -> tuple[float, int]:
    """MiB a second, and the KiB by which memory rose meanwhile."""
    with opened(url + str(size)) as stream:
        assert stream.recv(4, socket.MSG_WAITALL) == b"SSH-"
        before, began, came, most = status("VmRSS"), time.perf_counter(), 0, 0
        buffer = bytearray(256 << 10)
        while count := stream.recv_into(buffer):
            came += count
            if came % (64 << 20) < count:
                most = max(most, status("VmRSS"))
        assert came == size, came
        return size / (1 << 20) / (time.perf_counter() - began), max(most, before) - before


def many(url: str, count: int) -> tuple[float, int, float]:
    """KiB and threads of each stream, and the seconds in which all had spoken."""
    warm = by_channel(url)
    assert warm.recv(4) == b"SSH-"
    memory, threads, began = status("VmRSS"), status("Threads"), time.perf_counter()
    opened = channel(url)
    streams = [opened.open(POD) for _ in range(count)]
    for stream in streams:
        stream.settimeout(60)
        assert stream.recv(4) == b"SSH-"
    seconds = time.perf_counter() - began
    each = (status("VmRSS") - memory) / count
    more = status("Threads") - threads
    for stream in (*streams, warm):
        stream.close()
    return each, more, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        asyncio.run(server())
        return
    process = subprocess.Popen(
        [sys.executable, __file__, "--server"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{process.stdout.readline().strip()}/"
        size = options.mib << 20
        pairs = [(rate(by_relay, url, size), rate(by_channel, url, size)) for _ in range(ROUNDS)]
        each, more, seconds = many(url, options.streams)
    finally:
        process.kill()
        process.wait()
    floor = statistics.median(relay for (relay, _), _ in pairs)
    ours = statistics.median(rate for _, (rate, _) in pairs)
    memory = max(rise for _, (_, rise) in pairs[1:])
    table = Table("work", "measured", "floor or limit")
    table.add_row(f"cat of {options.mib} MiB", f"{ours:.0f} MiB/s", f"{floor:.0f} MiB/s by a relay")
    table.add_row("… of the relay's rate", f"{ours / floor:.2f}", "0.80")
    table.add_row("… memory meanwhile", f"+{memory} KiB", "flat")
    table.add_row(f"{options.streams} streams: memory of each", f"{each:.1f} KiB", "150 KiB")
    table.add_row("… threads of all together", f"+{more}", f"{2 * options.streams}, or one for all")
    table.add_row("… until all had spoken", f"{seconds:.2f} s", "")
    Console().print(table)


if __name__ == "__main__":
    main()
