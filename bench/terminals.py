"""What terminals over a server cost: memory, threads and CPU of its process for each that is open
and idle, and the time from a key to its echo.

    python bench/terminals.py [--terminals 500]

The server is a process of its own; the VM is an sshd of this host, whose memory is not counted.
Memory is RSS, which the figures of a first terminal (libraries, the first threads) are taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.entered import PROTOCOL

ROOT = Path(__file__).parent.parent
EACH = 50  # terminals of one token
AT_ONCE = 8  # that are being opened
QUIET = 20.0  # seconds over which idle ones are watched
KEYS = 200


class ServerProcess:
    """What the kernel says of it."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")

    def status(self, name: str) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))

    def cpu(self) -> float:
        """Seconds of CPU."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def opened(place: dict[str, Any], token: str, *command: str) -> ClientConnection:
    """A terminal in which a command has begun."""
    url = place["url"].replace("http", "ws", 1) + "/api/v1/builds/b-1/terminal"
    socket = await connect(
        url, subprotocols=[Subprotocol(PROTOCOL)], compression=None, proxy=None,
        additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=60,
    )  # fmt: skip
    await socket.send(json.dumps({"type": "start", "command": command}))
    assert json.loads(await socket.recv()) == {"type": "started"}
    return socket


async def echoes(socket: ClientConnection) -> list[float]:
    """Seconds from a key to its echo."""
    found = []
    for _ in range(KEYS):
        began = time.perf_counter()
        await socket.send(b"x")
        await socket.recv()
        found.append(time.perf_counter() - began)
    return found


async def measure(place: dict[str, Any], server: ServerProcess, terminals: int) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    line = "stty -icanon; exec cat >/dev/null"
    first = await opened(place, place["tokens"][-1], "sh", "-c", line)
    alone = await echoes(first)
    before = {name: server.status(name) for name in ("VmRSS", "Threads")}
    began = time.monotonic()

    async def one(number: int) -> ClientConnection:
        async with turns:
            return await opened(place, place["tokens"][number // EACH], "sleep", "1000")

    sockets = await asyncio.gather(*map(one, range(terminals)))
    took = time.monotonic() - began
    await asyncio.sleep(QUIET)  # threads of the pool that helped to open them end
    after = {name: server.status(name) for name in ("VmRSS", "Threads")}
    cpu, began = server.cpu(), time.monotonic()
    await asyncio.sleep(QUIET)
    share = (server.cpu() - cpu) / (time.monotonic() - began)
    among = await echoes(first)
    await asyncio.gather(*(socket.close() for socket in sockets))
    await asyncio.sleep(QUIET)
    closed = {name: server.status(name) for name in ("VmRSS", "Threads")}
    await first.close()
    table = Table(title=f"{terminals} terminals over one server")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("KiB of memory each", f"{(after['VmRSS'] - before['VmRSS']) / terminals:.0f}")
    table.add_row("threads each", f"{(after['Threads'] - before['Threads']) / terminals:.2f}")
    table.add_row("opened in a second", f"{terminals / took:.0f}")
    table.add_row("% of a CPU, all idle", f"{100 * share:.1f}")
    table.add_row("threads left after them", f"{closed['Threads'] - before['Threads']}")
    table.add_row("MiB left after them", f"{(closed['VmRSS'] - before['VmRSS']) / 1024:.0f}")
    for name, found in (("alone", alone), ("among them", among)):
        middle = 1000 * statistics.median(found)
        late = 1000 * sorted(found)[int(len(found) * 0.95)]
        table.add_row(f"ms from key to echo, {name}, p50 / p95", f"{middle:.1f} / {late:.1f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--terminals", type=int, default=500)
    terminals: int = parser.parse_args().terminals
    with tempfile.TemporaryDirectory() as name:
        tokens = str(terminals // EACH + 1)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.entered_server", name, tokens],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            place = json.loads(server.stdout.readline())
            asyncio.run(measure(place, ServerProcess(server.pid), terminals))
        finally:
            server.stdin.close()
            server.wait()


if __name__ == "__main__":
    main()
