"""The command line over a provider at a local endpoint, and what it says of images."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Done
from tests.support.ec2 import INSTALLATION, REGION, Amazon
from tests.support.fake_packer import Packer
from tests.support.ledger_builds import submitted
from tests.support.stand_ins import until
from vmrunner.cli import main
from vmrunner.config import sources
from vmrunner.lib import resources
from vmrunner.runtime.app import App


class Cli:
    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *argv: str) -> Done:
        code = main(argv)
        return Done(code, *self._capture.readouterr())

    def images(self) -> list[dict[str, Any]]:
        return self("image", "ls", "-o", "json").items


def configure(home: Path, aws: Amazon, **more: str) -> Path:
    """`more` are lines of the provider's table, as TOML. Without subnets and groups Packer makes a
    group of its own."""
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    file = home / "vmrunner.toml"
    file.write_text(
        f'installation = "{INSTALLATION}"\ndefault_provider = "aws"\n'
        f'[providers.aws]\nkind = "ec2"\nregion = "{REGION}"\nendpoint_url = "{aws.cloud.url}"\n'
        f'{lines}[providers.local]\nkind = "qemu"\n'
    )
    return file


@pytest.fixture
def config(home: Path, aws: Amazon, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = configure(home, aws)
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    return file


@pytest.fixture
def cli(config: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)


@contextlib.contextmanager
def app() -> Iterator[App]:
    """The parts of the configuration that is found from here."""
    parts = App(sources.load().settings)
    try:
        yield parts
    finally:
        parts.close()


def wait_for(image: str, build: str = "b-1") -> None:
    """A build that names an image is queued."""
    with app() as parts:
        submitted(parts.ledger, build, image=image)


def spoil_builds() -> None:
    """What each build asks for cannot be read any more."""
    with app() as parts:
        path = parts.paths.ledger
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE builds SET spec = '{'")


def lose_ledger() -> None:
    """It is not there any more; the installation is, by the configuration."""
    with app() as parts:
        path = parts.paths.ledger
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def started(
    config: Path, argv: tuple[str, ...], ready: Callable[[], object]
) -> subprocess.Popen[bytes]:
    """A command in a process of its own, when it has come that far."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vmrunner", *argv],
        cwd=config.parent,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(lambda: process.poll() is not None or bool(ready()), seconds=60)
    assert process.poll() is None
    return process


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and its end."""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err


def killed(process: subprocess.Popen[bytes], packer: Packer) -> None:
    """Its death, and then Packer's."""
    process.kill()
    process.communicate()
    until(lambda: gone(packer.runs[-1]["pid"]), seconds=60)


def gone(pid: int) -> bool:
    """A process that is no more, or waits for nobody."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def declared() -> set[str]:
    """The variables that the templates know."""
    text = "".join(file.read_text() for file in resources.path("packer").glob("*.pkr.hcl"))
    return set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
