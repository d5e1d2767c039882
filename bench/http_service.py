"""The HTTP service under load, beside floors of the same machine.

    python bench/http_service.py [submit] [log] [followers] [--database sqlite|postgresql]

`submit`: builds with a body of 10 KiB over 16 connections, as many as go and then 300 a second,
beside a bare FastAPI application that inserts the body into one table. `log`: 256 MiB through the
server, beside reading it where it lies, and a bare FastAPI that sends a file. `followers`: 500 of
one build as server-sent events, and what the server's memory grows by. The server is a process of
its own, without an engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support import postgres
from tests.support.http_service import Service
from tests.support.ledger_builds import running
from tests.support.scripted_app import CountedApp
from vmrunner.cli.log_sink import LogSink
from vmrunner.config.settings import Settings
from vmrunner.ledger import Ledger
from vmrunner.model import Reason, Result
from vmrunner.services.client import HttpClient
from vmrunner.services.client.ledger import RemoteLog, RemoteLogs
from vmrunner.services.logs import LogReader, lines
from vmrunner.store import open_store
from vmrunner.store.build_log import BuildLog
from vmrunner.store.uploader import Uploader

MIB: Final = 1 << 20
CONNECTIONS: Final = 16
RATE: Final = 300  # submits a second
PIECE: Final = 256 << 10
LINE: Final = b"[ 12345678] compiling src/module_42.c: nothing to see here\n"
FLOOR: Final = """
import json, sqlite3, sys, threading, uuid
import uvicorn
from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

url, lock, app = sys.argv[1], threading.Lock(), FastAPI()
if url.startswith("sqlite"):
    database = sqlite3.connect(url.removeprefix("sqlite:///") + ".floor", check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    mark = "?"
else:
    import psycopg
    database, mark = psycopg.connect(url), "%s"
database.execute("CREATE TABLE IF NOT EXISTS floor (id VARCHAR PRIMARY KEY, body VARCHAR)")
database.commit()

@app.post("/api/v1/builds", status_code=201)
def submit(body: dict = Body()):
    name = uuid.uuid4().hex
    with lock:
        database.execute(f"INSERT INTO floor VALUES ({mark}, {mark})", (name, json.dumps(body)))
        database.commit()
    return {"id": name}

@app.get("/api/v1/builds/b-log/logs")
def log():
    def pieces():
        with open(sys.argv[2], "rb") as file:
            while piece := file.read(256 << 10):
                yield piece
    return StreamingResponse(pieces())

config = uvicorn.Config(app, port=0, log_level="error", http=H11Protocol)
server = uvicorn.Server(config)
listening = config.bind_socket()
listening.listen(128)
url = "http://127.0.0.1:%d" % listening.getsockname()[1]
print(json.dumps({"url": url, "token": "x"}), flush=True)
server.run(sockets=[listening])
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs in a process of its own."""

    host: str
    port: int
    token: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def memory(self) -> float:
        """Resident memory in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(*command: str) -> Iterator[Target]:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        parts = urlsplit(ready["url"])
        yield Target(str(parts.hostname), int(parts.port or 0), ready["token"], process)
    finally:
        process.terminate()
        process.wait()


def settings(root: Path, url: str) -> Settings:
    os.environ["XDG_DATA_HOME"] = str(root / "data")
    return Settings.model_validate(
        {
            "providers": {"fake": {"kind": "fake"}},
            "database": {"url": url},
            "store": {"url": f"file://{root}/store"},
        }
    )


def serve(root: Path, url: str) -> None:
    """The server's process."""
    service = Service(root, None, settings(root, url))
    print(json.dumps({"url": service.url, "token": service.token()}), flush=True)
    threading.Event().wait()


def request(target: Target) -> bytes:
    body = json.dumps({"steps": [f"echo {'x' * 10_200}"]}).encode()
    head = (
        f"POST /api/v1/builds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def submits(target: Target, seconds: float, rate: float | None) -> tuple[float, list[float]]:
    """Submits a second, and how long each took. `rate`: so many a second; None: as many as go."""
    text, times = request(target), []
    began = time.perf_counter()
    turn = iter(range(1 << 30))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        while True:
            due = time.perf_counter()
            if rate is not None:
                due = began + next(turn) / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if due - began > seconds:
                break
            writer.write(text)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r")[0])
            await reader.readexactly(size)
            assert b" 201 " in head[:16], head
            times.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return len(times) / (time.perf_counter() - began), times


def measure_submits(root: Path, url: str, name: str, seconds: float, table: Table) -> None:
    targets = {
        "vmrunner": [str(Path(__file__)), "--serve", str(root), url],
        "FastAPI and one insert": ["-c", FLOOR, url, ""],
    }
    for what, command in targets.items():
        with started(*command) as target:
            asyncio.run(submits(target, 1, None))
            before = target.cpu()
            most, times = asyncio.run(submits(target, seconds, None))
            cpu = (target.cpu() - before) / len(times)
            _, paced = asyncio.run(submits(target, seconds, RATE))
        ordered = sorted(paced)
        table.add_row(
            name,
            what,
            f"{most:.0f}",
            f"{1e3 * cpu:.2f} ms",
            f"{len(paced) / seconds:.0f}",
            f"{1e3 * ordered[len(ordered) // 2]:.1f} ms",
            f"{1e3 * ordered[int(len(ordered) * 0.99)]:.1f} ms",
        )


def filled(ledger: Ledger, build: str, size: int) -> None:
    """A running build with a log of that size."""
    running(ledger, build, f"vm-{build}")
    data = LINE * (PIECE // len(LINE))
    for n in range(size // len(data)):
        ledger.logs.append(build, 1, 1, offset=(n + 1) * len(data), data=data, now=105.0)


def raw(target: Target, build: str) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    headers = {"Authorization": f"Bearer {target.token}"}
    connection.request("GET", f"/api/v1/builds/{build}/logs", headers=headers)
    answer, buffer, size = connection.getresponse(), bytearray(MIB), 0
    assert answer.status == 200
    while found := answer.readinto(buffer):
        size += found
    connection.close()
    return size


def chunks(log: Callable[[], Any]) -> int:
    return sum(len(chunk.data) for chunk in LogReader(log()).new_chunks())


def written(log: Callable[[], Any], file: Path) -> int:
    """Write it into a file as `vmrunner logs` does."""
    with file.open("w") as stream, LogSink.to(stream, timestamps=False) as sink:
        for chunk in LogReader(log()).new_chunks():
            sink.write(chunk)
    return file.stat().st_size


def log_bytes(log: Callable[[], Any]) -> int:
    return sum(len(line.raw) + 1 for line in lines(LogReader(log()).new_chunks()))


def measure_log(root: Path, url: str, name: str, mib: int, table: Table) -> None:
    ledger = CountedApp(settings(root, url)).ledgers.open(make=True)
    filled(ledger, "b-log", mib * MIB)
    store = open_store(f"file://{root}/store")
    plain = root / "plain"
    plain.write_bytes(LINE * (mib * MIB // len(LINE)))
    command = [str(Path(__file__)), "--serve", str(root), url]
    for where in ("live", "stored"):
        if where == "stored":
            ledger.builds.finish(
                "b-log", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=110.0
            )
            Uploader(ledger, lambda: store, sources=root / "s", artifacts=root / "a").run()
            assert ledger.logs.read("b-log") == []
        with started(*command) as target, started("-c", FLOOR, url, str(plain)) as floor:
            client = HttpClient(target.url, target.token)
            embedded = partial(BuildLog, ledger, lambda: store, "b-log")
            over_http = partial(RemoteLog, RemoteLogs(client), "b-log")
            ways: dict[str, Callable[[], int]] = {
                "embedded": partial(chunks, embedded),
                "bytes": partial(raw, target, "b-log"),
                "floor": partial(raw, floor, "b-log"),
                "chunks": partial(chunks, over_http),
                "into a file, embedded": partial(written, embedded, root / "written"),
                "into a file": partial(written, over_http, root / "written"),
                "lines embedded": partial(log_bytes, embedded),
                "lines": partial(log_bytes, over_http),
            }
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(3):
                for way, read in ways.items():
                    if turn and mib > 16 and "lines" in way:  # 20 MB/s on both sides
                        continue
                    began = time.perf_counter()
                    size = read()
                    rates[way].append(size / (time.perf_counter() - began) / 1e6)
            client.close()
        base = 1.0
        for way, found in rates.items():
            middle = statistics.median(found)
            base = middle if "embedded" in way else base
            table.add_row(name, where, way, f"{middle:.0f}", f"{middle / base:.2f}")
    ledger.close()


async def follow(target: Target, build: str, lines: list[int], place: int) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=PIECE)
    writer.write(
        f"GET /api/v1/builds/{build}/logs HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {target.token}\r\n\r\n".encode()
    )
    while data := await reader.read(PIECE):
        lines[place] += data.count(b"event: line")
    writer.close()


async def followed(target: Target, ledger: Ledger, many: int) -> tuple[float, float, float, float]:
    """MiB more with all there, MiB more at most, seconds until all have a line, CPU seconds of the
    server for one change."""
    lines, before = [0] * many, target.memory()
    tasks = [asyncio.create_task(follow(target, "b-f", lines, n)) for n in range(many)]
    await _until(lambda: min(lines) >= 1, 300)
    base, most, delays, cpu = target.memory() - before, 0.0, [], target.cpu()
    for n in range(40):
        data = LINE * 20
        ledger.logs.append("b-f", 1, 1, offset=100 + n, data=data, now=105.0)
        began = time.perf_counter()
        await _until(lambda n=n: min(lines) >= 1 + 20 * (n + 1), 60)
        delays.append(time.perf_counter() - began)
        most = max(most, target.memory() - before)
    cpu = (target.cpu() - cpu) / 40
    for task in tasks:
        task.cancel()
    return base, most, sorted(delays)[20], cpu


async def _until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        await asyncio.sleep(0.01)


def measure_followers(root: Path, url: str, name: str, many: int, table: Table) -> None:
    ledger = CountedApp(settings(root, url)).ledgers.open(make=True)
    running(ledger, "b-f", "vm-f")
    ledger.logs.append("b-f", 1, 1, offset=1, data=LINE, now=105.0)
    with started(str(Path(__file__)), "--serve", str(root), url) as target:
        warm = asyncio.run(submits(target, 1, None))
        assert warm
        base, most, delay, cpu = asyncio.run(followed(target, ledger, many))
    table.add_row(
        name, str(many), f"{base:.0f}", f"{most:.0f}", f"{delay:.2f} s", f"{1e3 * cpu:.0f} ms"
    )
    ledger.close()


TABLES: Final = {
    "submit": ("", "", "most a second", "CPU each", f"of {RATE} a second", "p50", "p99"),
    "log": ("", "", "", "MB/s", "× embedded"),
    "followers": ("", "followers", "MiB more", "at most", "a line to all", "CPU for it"),
}


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*TABLES, []])
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--followers", type=int, default=500)
    options = parser.parse_args()
    console = Console()
    with contextlib.ExitStack() as stack:
        databases = options.database or ["sqlite", "postgresql"]
        server = stack.enter_context(postgres.running()) if "postgresql" in databases else None
        for part in options.parts or TABLES:
            table = Table(title=part)
            for column in TABLES[part]:
                table.add_column(column)
            for name in databases:
                with tempfile.TemporaryDirectory() as directory:
                    root = Path(directory)
                    (root / "data" / "vmrunner").mkdir(parents=True, mode=0o700)
                    settings(root, "")
                    url = f"sqlite:///{root}/data/vmrunner/ledger.db"
                    if name == "postgresql":
                        assert server is not None
                        url = server.new()
                    if part == "submit":
                        measure_submits(root, url, name, options.seconds, table)
                    elif part == "log":
                        measure_log(root, url, name, options.mib, table)
                    else:
                        measure_followers(root, url, name, options.followers, table)
            console.print(table)
    console.print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
