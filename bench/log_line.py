"""How long a line of a build's log takes from the guest to who follows it.

    python bench/log_line.py [--lines 150] [--followers 1,200]

A step in a guest's supervisor writes the time every 100 ms. The line goes the whole way: its
follower, a local sshd, the session's relay, the ledger, the server's stream. It is read by `curl`,
by the page in Chromium (until it is an element there), and by so many more streams as are asked
for, which are another process. No VM: the guest's program runs on this host, whose clock is the one
that all are measured by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support import ledger_builds
from tests.support.browser import chromium
from tests.support.fake_sessions import Recorder, Running, make_job
from tests.support.guest import booted
from tests.support.http_service import Service, service
from tests.support.session_world import _as
from tests.support.sshd import Proxy, running
from vmrunner.model import Reason, Result
from vmrunner.session import supervisor_calls
from vmrunner.session.session import Session
from vmrunner.session.ssh import client

WATCH = """() => {
  window.found = [];
  new MutationObserver((changes) => {
    const now = Date.now() / 1000;
    for (const { addedNodes } of changes)
      for (const node of addedNodes)
        for (const text of node.querySelectorAll?.(".text") ?? [])
          if (/^[0-9.]+$/.test(text.textContent)) found.push(now - Number(text.textContent));
  }).observe(document.getElementById("log"), { childList: true, subtree: true });
}"""
TEXT = re.compile(rb'"text": "(\d+\.\d+)"')


class ToLedger(Recorder.At):
    """A reporter that stores the log in a ledger too."""

    def __init__(self, record: Recorder, http: Service, build: str) -> None:
        super().__init__(record)
        record.owner = self
        self._logs, self._build = http.app.ledger.logs, build

    def log(self, offset: int, data: bytes) -> None:
        super().log(offset, data)
        self._logs.append(self._build, 1, 1, offset=offset, data=data, now=time.time())


async def follow(host: str, port: int, build: str, token: str, count: int) -> list[float]:
    """Follow one log by so many streams, until each has ended."""

    async def one() -> list[float]:
        reader, writer = await asyncio.open_connection(host, port)
        head = f"GET /api/v1/builds/{build}/logs HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream"
        writer.write(f"{head}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        found: list[float] = []
        rest = b""
        while data := await reader.read(1 << 16):
            whole, _, rest = (rest + data).rpartition(b"\n\n")
            now = time.time()
            found += [now - float(match[1]) for match in TEXT.finditer(whole)]
            if b"event: end" in whole:
                break
        writer.close()
        return found

    return [
        each for found in await asyncio.gather(*(one() for _ in range(count))) for each in found
    ]


@contextmanager
def followers(http: Service, build: str, count: int) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, __file__, "--follow", http.url, build, http.token(), str(count)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        yield process


def by_curl(http: Service, build: str, found: list[float]) -> threading.Thread:
    words = ["curl", "-sN", "-H", "Accept: text/event-stream", "-H"]
    words += [f"Authorization: Bearer {http.token()}", f"{http.url}/api/v1/builds/{build}/logs"]

    def read() -> None:
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            matches = filter(None, map(TEXT.search, process.stdout))
            found.extend(time.time() - float(match[1]) for match in matches)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def measure(root: Path, lines: int, count: int) -> dict[str, list[float]]:
    (root / "sshd").mkdir(parents=True)
    os.environ["XDG_DATA_HOME"] = f"{root}/data"
    with (
        running(root / "sshd") as sshd,
        booted(root / "vm") as guest,
        service(root) as http,
        chromium(root / "chromium") as browser,
    ):
        supervisor_calls.SUPERVISOR = guest.supervisor  # type: ignore[misc]
        init = client.Dialer.__init__
        client.Dialer.__init__ = _as(sshd.user, init)  # type: ignore[method-assign]
        proxy = Proxy(sshd.address)
        build = ledger_builds.running(http.app.ledger, "b-1", "vm-1", provider="fake").id
        page = browser.new_page()
        page.goto(f"{http.url}/login?next=/builds/{build}")
        page.fill("input[name=token]", http.token())
        page.click("button")
        page.locator("#log[data-ready]").wait_for()
        page.evaluate(WATCH)
        curl: list[float] = []
        thread = by_curl(http, build, curl)
        with followers(http, build, count) as others:
            slots = http.listener.app.state.stream_slots
            while slots._busy.total() < count + 2:
                time.sleep(0.1)
            script = f"n=0; while [ $n -lt {lines} ]; do date +%s.%N; sleep 0.1; n=$((n+1)); done"
            job = make_job(proxy.address, sshd.access, root / "artifacts", script)
            Running(Session(job, ToLedger(Recorder(), http, build))).wait()
            time.sleep(1.0)
            seen = page.evaluate("found")
            http.app.ledger.builds.finish(
                build, epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, now=time.time()
            )
            assert others.stdout is not None
            rest = json.loads(others.stdout.read())
        thread.join()
        client.Dialer.__init__ = init  # type: ignore[method-assign]
        proxy.close()
    return {"curl": curl, "page": seen, f"{count} streams": rest}


def quantiles(found: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(found, n=20)
    return cuts[9], cuts[18]


def main() -> None:
    if sys.argv[1:2] == ["--follow"]:
        url, build, token, count = sys.argv[2:]
        host, port = url.removeprefix("http://").split(":")
        print(json.dumps(asyncio.run(follow(host, int(port), build, token, int(count)))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=150)
    parser.add_argument("--followers", default="1,200")
    options = parser.parse_args()
    table = Table("followers", "reader", "lines", "p50", "p95")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for word in options.followers.split(","):
            found = measure(Path(name, word), options.lines, int(word))
            for reader, seconds in found.items():
                p50, p95 = quantiles(seconds)
                results[f"{word}: {reader}"] = {"p50": p50, "p95": p95, "lines": len(seconds)}
                table.add_row(word, reader, str(len(seconds)), f"{p50:.3f} s", f"{p95:.3f} s")
    Console(width=100).print(table)
    print(json.dumps({"load": os.getloadavg()[0], "rows": results}))


if __name__ == "__main__":
    main()
