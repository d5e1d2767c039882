"""`vmrunner github serve` as a program: a job becomes a build, and a stop leaves it to the
ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.blackbox import Cli, until
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.fake_github import TOKEN
from tests.support.github_server import served_github


@contextmanager
def serving(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "github.log").open("ab") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.file_cloud", "github", "serve"],
            cwd=home,
            stdout=log,
            stderr=log,
        )
        try:
            yield program
        finally:
            program.kill()
            program.wait()


def _configure(home: Path, table: str) -> None:
    """As the user's own: a project's file may not say it."""
    own = home / "config/vmrunner"
    own.mkdir(parents=True)
    (own / "config.toml").write_text(table)


def test_a_stop_gives_the_session_back_and_leaves_jobs(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    done = home / "done"
    with served_github() as (github, url):
        table = f'[github]\nurl = "{url}"\ntoken = "GITHUB_TOKEN"\n[[github.scale_sets]]\n'
        table += f'name = "fast"\ncommand = "until {done}"\n'
        _configure(home, table)
        with serving(home) as program:
            until(lambda: github.sessions or program.poll() is not None, what="a session")
            job = github.queue_job()
            until(lambda: [b for b in cli("ps", "-o", "json").items if b["state"] == "running"])
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
        assert not github.sessions
        (build,) = cli("ps", "-o", "json").items
        assert build["labels"]["github.scale-set"] == f"{url.partition('://')[2]}#fast"
        log = (home / "github.log").read_text()
        (runner,) = github.runners.values()
        assert runner.config not in log
        assert runner.config not in str(cli("show", build["id"], "-o", "json").items)
        assert "Traceback" not in log
        with serving(home) as program:  # the count says 1, and the ledger that it is there
            until(lambda: github.sessions or program.poll() is not None, what="a session")
            github.comes(runner.name)
            github.finish(job)
            until(lambda: not github.messages)
            done.touch()
            until(lambda: not cli("ps", "-o", "json").items)
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
    (build,) = cli("ps", "-a", "-o", "json").items
    assert build["result"] == "success"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("", "github.scale_sets: there is none"),
        (
            '[github]\nurl = "https://github.com/acme"\ntoken = "NO_SUCH"\n'
            '[[github.scale_sets]]\nname = "fast"\n',
            "github.token: NO_SUCH is not set",
        ),
        (
            '[github]\nurl = "https://github.com/acme"\ntoken = "HOME"\nregistry = "HOME"\n'
            '[[github.scale_sets]]\nname = "fast"\n',
            "github.registry: no Docker configuration with auths",
        ),
        (
            '[github]\nurl = "http://127.0.0.1:1/acme"\ntoken = "HOME"\n'
            '[[github.scale_sets]]\nname = "fast"\nbuild = { timeout = "99h" }\n',
            "github.scale_sets: fast: timeout: 4d3h is not below limits.max_ttl",
        ),
    ],
)
def test_what_is_missing_is_told_at_once(home: Path, cli: Cli, table: str, why: str) -> None:
    _configure(home, table)
    refused = cli("github", "serve")
    assert refused.code == 2
    assert why in refused.err.decode()
