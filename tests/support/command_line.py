"""The command line in this process, over a fake cloud, in a home of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.documents import checked
from tests.support.scripted_app import join
from vmrunner.cli import main
from vmrunner.ledger import Ledger

LAST = re.compile(
    rb"vmrunner: result=(\S*) reason=(\S*) exit_code=(\S*) build=(\S+)(?: step=[^\n]+)?\n\Z"
)
CONFIG = """
default_provider = "fake"
[limits]
max_ttl = "2h"
[providers.fake]
kind = "fake"
[providers.other]
kind = "qemu"
"""


class Done(NamedTuple):
    code: int
    out: bytes
    err: bytes

    @property
    def last(self) -> tuple[str, ...]:
        """result, reason, exit code and build of the last line on stderr."""
        match = LAST.search(self.err)
        assert match, self.err.decode()
        return tuple(part.decode() for part in match.groups())

    @property
    def items(self) -> list[dict[str, Any]]:
        document = checked(json.loads(self.out))
        assert document["schema_version"] == 1
        items: list[dict[str, Any]] = document["items"]
        return items


Cli = Callable[..., Done]


def isolated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing of the developer's count: no variable, no data, no configuration, no cache."""
    for name in list(os.environ):
        if name.startswith(("VMRUNNER_", "GITHUB_", "GITLAB_")):
            monkeypatch.delenv(name)
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(directory / name.lower()))
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration of its own; nothing of the developer's counts."""
    (isolated(tmp_path, monkeypatch) / "vmrunner.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def ledger_at_home(home: Path) -> Iterator[Ledger]:
    """The ledger of its commands."""
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    yield ledger
    ledger.close()


@pytest.fixture
def cli(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    def run(*argv: str) -> Done:
        code = main(argv, join=join)
        out, err = capfdbinary.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture(params=["ledger", "server"])
def anywhere(request: pytest.FixtureRequest, home: Path) -> Iterator[Cli]:
    """The command line at a ledger, and at a server that has one: it says and does the same."""
    if request.param == "ledger":
        yield request.getfixturevalue("cli")
        return
    capture = request.getfixturevalue("capfdbinary")
    patched = request.getfixturevalue("monkeypatch")
    with at_server(home, patched) as run:
        yield lambda *argv: Done(run(argv), *capture.readouterr())


@contextmanager
def at_server(home: Path, patched: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """A command line whose ledger, providers and configuration are a server's. It has none."""
    from tests.support.http_service import Service
    from vmrunner.config import sources

    service = Service(home, None, sources.load().settings)
    service.runner._host.ensure("fake")
    assert service.runner.app.store, "the server's own: opened before the client's environment"
    elsewhere = home / "client"
    elsewhere.mkdir()
    with patched.context() as client:
        client.setenv("VMRUNNER_SERVER", service.url)
        client.setenv("VMRUNNER_TOKEN", service.token())
        client.setenv("HOME", str(elsewhere / "none"))
        for name in ("DATA", "CONFIG", "CACHE"):
            client.setenv(f"XDG_{name}_HOME", str(elsewhere / "none"))
        client.delenv("VMRUNNER_CONFIG", raising=False)
        (home / "vmrunner.toml").rename(home / "server.toml")
        yield main
    service.close()
    assert not (elsewhere / "none").exists()


def script(*lines: str) -> Sequence[str]:
    """A job file's worth of lines as one step."""
    Path("script.yml").write_text(json.dumps({"jobs": {"j": {"steps": ["\n".join(lines)]}}}))
    return ("-f", "script.yml", "j")
