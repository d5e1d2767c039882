"""A network that goes away under those who use a server, and comes back, or never does."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.browser import CHROMIUM, FLAGS, Visitor

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
OUTAGE = 20.0  # seconds
LONG = 120_000  # milliseconds


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """Two namespaces with a cable between them: a server's, and its callers'."""

    def __init__(self) -> None:
        self.server, self.callers = f"vr-server-{os.getpid()}", f"vr-callers-{os.getpid()}"

    def make(self) -> None:
        for name, address in ((self.server, "10.213.7.1/24"), (self.callers, "10.213.7.2/24")):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            if name == self.callers:
                ip("-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v0",
                   "netns", self.server)  # fmt: skip
                ip("-n", name, "addr", "add", address, "dev", "v0")
                ip("-n", self.server, "addr", "add", "10.213.7.1/24", "dev", "v0")
                ip("-n", name, "link", "set", "v0", "up")
        self.mend()

    def cut(self) -> None:
        ip("-n", self.server, "link", "set", "v0", "down")

    def mend(self) -> None:
        ip("-n", self.server, "link", "set", "v0", "up")

    def remove(self) -> None:
        for name in (self.server, self.callers):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class World:
    """Both servers beyond the cable, and who asks them from this end of it."""

    def __init__(self, network: Network, place: dict[str, list[str]], root: Path) -> None:
        self.network, self.place, self.root = network, place, root
        self.started: list[subprocess.Popen[bytes]] = []
        self.open: list[int] = []  # ends of terminals

    def environment(self, server: str) -> dict[str, str]:
        url, token, _ = self.place[server]
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "VMRUNNER_SERVER": url, "VMRUNNER_TOKEN": token,
        }  # fmt: skip

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.network.callers, *words]

    def start(self, server: str, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.command(*options.pop("before", ()), sys.executable, "-m", "vmrunner", *words),
            env=self.environment(server), cwd=self.root, **options,
        )  # fmt: skip
        self.started.append(process)
        return process


@pytest.fixture
def reached(tmp_path: Path) -> Iterator[World]:
    network = Network()
    with contextlib.ExitStack() as stack:
        stack.callback(network.remove)
        network.make()
        place = {}
        for kind in ("entered", "builds"):
            (tmp_path / kind).mkdir()
            server = subprocess.Popen(
                ["ip", "netns", "exec", network.server, sys.executable, "-m",
                 "tests.support.reached_server", "10.213.7.1", str(tmp_path / kind), kind],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            stack.enter_context(server)
            assert server.stdout is not None
            place[kind] = json.loads(server.stdout.readline())
        world = World(network, place, tmp_path)
        try:
            yield world
        finally:
            network.mend()
            for process in world.started:
                process.kill()
                process.__exit__(None, None, None)  # closes its pipes and waits
            for number in world.open:
                os.close(number)


@pytest.fixture
def visitor(reached: World) -> Iterator[Visitor]:
    """A browser at this end."""
    program = reached.root / "chromium"
    program.write_text(f'#!/bin/sh\nexec ip netns exec {reached.network.callers} {CHROMIUM} "$@"\n')
    program.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*FLAGS],
            env={"HOME": str(reached.root), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        yield Visitor(browser, *reached.place["builds"][:2])
        browser.close()


def heard(stream: IO[bytes] | int, word: bytes, seconds: float = 90.0) -> bytes:
    """What comes until a word does."""
    number = stream if isinstance(stream, int) else stream.fileno()
    found, until = b"", time.monotonic() + seconds
    while word not in found:
        ready, _, _ = select.select([number], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"{word!r} did not come: {found[-500:]!r}"
        piece = os.read(number, 65_536)
        assert piece, f"it ended without {word!r}: {found[-500:]!r}"
        found += piece
    return found


class Followers:
    """A page, `logs -f`, `ssh` and `sandbox shell`, all of which have said something."""

    def __init__(self, reached: World, page: Page) -> None:
        url, _, build = reached.place["builds"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.logs = reached.start("builds", "logs", "-f", build, **pipes)
        self.ssh = reached.start("entered", "ssh", "b-1", "--", "cat", **pipes)
        self.keyboard, screen = pty.openpty()
        self.shell = reached.start(
            "entered", "sandbox", "shell", "b-2", before=["setsid", "--ctty"],
            stdin=screen, stdout=screen, stderr=screen,
        )  # fmt: skip
        os.close(screen)
        reached.open.append(self.keyboard)
        page.goto(f"{url}/builds/{build}")
        expect(page.locator("#L50")).to_be_attached(timeout=LONG)
        self.log = heard(self.logs.stdout, b"line 50 of many\n")
        self.type(1)
        self.echoed(1)

    def type(self, number: int) -> None:
        """A line into both terminals."""
        assert self.ssh.stdin is not None
        self.ssh.stdin.write(f"{number} + 40\n".encode())
        self.ssh.stdin.flush()
        os.write(self.keyboard, f"echo $(({number} + 40))\r".encode())

    def echoed(self, number: int) -> None:
        heard(self.ssh.stdout, f"{number} + 40\n".encode())
        heard(self.keyboard, f"{number + 40}\r\n".encode())


def test_a_network_that_comes_back_loses_nothing(reached: World, visitor: Visitor) -> None:
    page, go = visitor.page, reached.root / "builds/go"
    each = Followers(reached, page)
    reached.network.cut()
    cut = time.monotonic()
    go.touch()  # what is written meanwhile comes afterwards
    each.type(2)
    time.sleep(max(0.0, cut + OUTAGE - time.monotonic()))  # the outage itself is what is tested
    reached.network.mend()
    each.echoed(2)
    expect(page.locator("h1")).to_contain_text("success", timeout=LONG)
    expect(page.locator("#connection")).to_be_empty(timeout=LONG)
    expect(page.locator("#L101")).to_contain_text("the last", timeout=LONG)
    numbers = "[...document.querySelectorAll('#log .block > div')].map(e => Number(e.id.slice(1)))"
    assert page.evaluate(numbers) == list(range(1, 102)), "each line once"
    each.log += heard(each.logs.stdout, b"the last\n")
    lines = [f"line {n} of many" for n in range(1, 51)]
    assert [x for x in each.log.decode().splitlines() if x.startswith("line")] == lines * 2
    assert each.logs.wait(60) == 0


def test_a_network_that_never_comes_back_is_told(reached: World, visitor: Visitor) -> None:
    page = visitor.page
    each = Followers(reached, page)
    reached.network.cut()
    each.type(2)
    expect(page.locator("#connection")).to_contain_text("No answer from the server", timeout=LONG)
    expect(page.locator("#L50")).to_be_attached()
    assert each.ssh.wait(120) == 125
    assert each.shell.wait(120) == 125
    heard(each.keyboard, b"broke off")
    heard(each.logs.stdout, b"waiting for the ledger", 120)
    assert each.logs.poll() is None
