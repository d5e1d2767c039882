"""A sandbox over HTTP, whose node dies amid three commands: the next one's client reads on."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from textwrap import dedent

import pytest

import vmrunner
from tests.support.sshd import free_port
from tests.vm.home import Home, text, wait_until
from tests.vm.serving import Serving
from vmrunner.api.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

TALK = dedent(
    """
    n=0
    while [ ! -e /work/go ]; do
        n=$((n + 1)); echo "line $n"; echo "error $n" >&2; sleep 0.1
    done
    exit 7
    """
)


@dataclass
class Service:
    """A node, and a client of it that has nothing but its address and a token."""

    url: str
    token: str
    serving: Serving
    runner: vmrunner.Runner


@pytest.fixture
def service(home: Home) -> Iterator[Service]:
    listen = f"127.0.0.1:{free_port()}"
    serving = Serving(home, "--listen", listen)
    try:
        made = home.run("token", "create", "client", "--scope", "submit,read")
        assert made.returncode == 0, text(made.stderr)
        url, token = f"http://{listen}", text(made.stdout).strip()
        with vmrunner.Runner(url=url, token=token) as runner:
            yield Service(url, token, serving, runner)
    finally:
        serving.kill()
        for row in home.items("ps"):  # of a test that failed
            home.run("cancel", row["id"])
        home.run("reap")


class Reader(threading.Thread):
    """Reads one command to its end."""

    def __init__(self, process: SandboxProcess) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.lines: list[bytes] = []
        self.start()

    def run(self) -> None:
        self.lines.extend(self.process)


def epoch_of(home: Home, build: str) -> int:
    with closing(sqlite3.connect(home.data / "ledger.db")) as ledger:
        ((epoch,),) = ledger.execute("SELECT epoch FROM builds WHERE id = ?", (build,)).fetchall()
    return int(epoch)


def whole(word: bytes, lines: list[bytes]) -> bool:
    return lines == [b"%s %d\n" % (word, n) for n in range(1, len(lines) + 1)]


def test_the_next_node_tells_all_that_three_commands_wrote(home: Home, service: Service) -> None:
    client = home.root / "client"
    client.mkdir()
    remote = {"HOME": str(client), "VMRUNNER_SERVER": service.url, "VMRUNNER_TOKEN": service.token}
    remote |= {f"XDG_{name}_HOME": str(client / name) for name in ("DATA", "CONFIG", "STATE")}
    with vmrunner.Sandbox.create(network="open", ttl="10m", runner=service.runner) as sandbox:
        data = os.urandom(3 << 20)
        sandbox.files.write("/work/data", data)
        readers = [Reader(sandbox.popen(["sh", "-c", TALK])) for _ in range(3)]
        for reader in readers:
            wait_until(lambda r=reader: len(r.lines) >= 20, seconds=120, what="its 20th line")

        service.serving.kill()
        service.serving.again()
        before = [len(reader.lines) for reader in readers]
        for reader, lines in zip(readers, before, strict=True):
            wait_until(
                lambda r=reader, n=lines: len(r.lines) > n, seconds=120, what="more of its lines"
            )
        source, target = f"{sandbox.id}:/work/data", str(client / "data")
        done = home.run("sandbox", "cp", source, target, timeout=120, **remote)
        assert done.returncode == 0, text(done.stderr)
        assert (client / "data").read_bytes() == data
        sandbox.run(["touch", "/work/go"], check=True)
        for reader in readers:
            assert reader.process.wait(timeout=120) == 7
            reader.join(60)
            errors = reader.process.stderr_bytes.splitlines(keepends=True)
            assert whole(b"line", reader.lines)
            assert whole(b"error", errors)
            assert len(errors) == len(reader.lines)
        assert epoch_of(home, sandbox.id) > 1
    ended = service.runner.wait(sandbox.id, timeout=120)
    assert (ended.result, ended.reason) == (vmrunner.Result.SUCCESS, vmrunner.Reason.USER)
    wait_until(lambda: not home.open_vms(), seconds=120, what="its VM to be gone")
    assert list(client.rglob("*.db")) == []
    assert service.serving.end() == 0
