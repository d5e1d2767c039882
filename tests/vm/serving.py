"""A `vmrunner serve` in a test's home, and builds that it drives."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vm.home import Home, processes_with, text, wait_until


class Serving:
    """A `vmrunner serve` that builds can count on."""

    def __init__(self, home: Home, *words: str) -> None:
        self._home = home
        self._words = words
        home.builds()  # makes the ledger
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._home.root / "serve.log").open("ab") as log:
            process = self._home.start("serve", *self._words, stdout=log, stderr=log)
        try:
            wait_until(lambda: self._joined(process.pid), seconds=120, what="it to serve")
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def _joined(self, pid: int) -> bool:
        """Otherwise `run -d` starts an engine in the background, and rightly so."""
        with closing(sqlite3.connect(self._home.data / "ledger.db")) as ledger:
            rows = ledger.execute("SELECT process FROM engines WHERE kind = 'serve'").fetchall()
        return any(json.loads(row[0])["pid"] == pid for row in rows)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        self.process = self._start()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def serving(home: Home) -> Iterator[Serving]:
    serving = Serving(home)
    yield serving
    serving.kill()
    for row in home.items("ps"):  # of a test that failed
        home.run("cancel", row["id"])


def submitted(home: Home, *args: str, **env: str) -> str:
    """The id of a build that runs in the background."""
    done = home.run("run", "-d", *args, **env)
    assert done.returncode == 0, text(done.stderr)
    return text(done.stdout).strip()


def in_vm(home: Home, build: str, script: str) -> None:
    done = home.run("ssh", build, "--", "sh", "-c", script, timeout=180)
    assert done.returncode == 0, text(done.stderr)


def log_of(home: Home, build: str) -> bytes:
    return home.run("logs", build, timeout=180).stdout


def row_of(home: Home, build: str) -> dict[str, Any]:
    (row,) = (row for row in home.builds() if row["id"] == build)
    return row


@contextmanager
def network_cut(home: Home) -> Iterator[None]:
    """The process that carries SSH into the only VM takes no byte; nobody is told."""
    (vm,) = home.instances()
    (qemu,) = (line for line in processes_with([vm["id"]]) if "qemu-system" in line.split()[1])
    status = Path(f"/proc/{qemu.split()[0]}/status").read_text()
    jail = int(status.split("PPid:")[1].split()[0])
    os.kill(jail, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(jail, signal.SIGCONT)


def times_lost(home: Home, build: str) -> int:
    """How often its owner lost the connection."""
    events = home.items("show", build)[0]["events"]
    return [event["kind"] for event in events].count("connection_lost")
