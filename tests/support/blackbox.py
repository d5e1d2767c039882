"""vmrunner as a black box, over a cloud in a file: its programs, and what a test asks of them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import file_cloud as filecloud
from tests.support.command_line import Done
from tests.support.file_cloud import FileCloud
from tests.support.scripted_app import wait_until
from vmrunner.cli import main

ROOT = Path(__file__).parents[2]
CONFIG = """
[providers.fake]
kind = "fake"
"""
NEWBORN, GAP, TTL = 900.0, 300.0, 2700.0

#: Programs start slowly on a crowded machine.
until = partial(wait_until, seconds=90)

Cli = Callable[..., Done]


@pytest.fixture
def cloud(home: Path, monkeypatch: pytest.MonkeyPatch) -> FileCloud:
    (home / "vmrunner.toml").write_text(CONFIG)
    monkeypatch.setenv("CLOUD_FILE", str(home / "cloud.json"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return FileCloud(home / "cloud.json")


@pytest.fixture
def cli(cloud: FileCloud, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    def run(*argv: str) -> Done:
        code = main(argv, join=filecloud.join)
        return Done(code, *capfdbinary.readouterr())

    return run


@contextmanager
def program(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`vmrunner serve`, killed in the end."""
    with (home / "serve.log").open("ab") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.file_cloud", "serve"],
            cwd=home,
            stdout=log,
            stderr=log,
        )
        try:
            yield program
        finally:
            program.send_signal(signal.SIGKILL)
            program.wait()


@contextmanager
def serving(home: Path, cli: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """The same, once it serves."""
    with program(home) as serve:
        until(lambda: b"an engine serves it" in cli("doctor").out)
        yield serve


def data_of(home: Path) -> Path:
    return home / "data" / "vmrunner"


def started(cli: Cli, cloud: FileCloud) -> str:
    """A build that belongs to the ledger and runs; what the cloud calls its VM."""
    before = set(cloud.vms())
    done = cli("run", "-d", "--", "until", "never")
    assert done.code == 0, done.err
    build = done.out.decode().strip()
    until(lambda: cli("show", build, "-o", "json").items[0]["state"] == "running")
    (name,) = set(cloud.vms()) - before
    return name


def tags_of(home: Path, instance: str, expires: float, **other: str) -> dict[str, str]:
    """As a VM of this very ledger has them."""
    with sqlite3.connect(data_of(home) / "ledger.db") as database:
        ((installation, generation),) = database.execute(
            "SELECT installation, generation FROM ledger"
        ).fetchall()
    database.close()
    tags = {
        "installation": installation,
        "generation": generation,
        "role": "build",
        "instance": instance,
        "build": "b-1",
        "expires-at": str(int(expires)),
    }
    return {f"vmrunner:{name}": value for name, value in (tags | other).items()}


def swept(cli: Cli, cloud: FileCloud) -> None:
    """As often as it takes to find an orphan out, past every newborn window."""
    cloud.advance(NEWBORN + 60)
    for _ in range(3):
        done = cli("reap")
        assert done.code == 0, done.err
        cloud.advance(GAP)
