"""What a newcomer says first, and is told: without an extra, a token, room on the disk."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from tests.support.command_line import Cli
from tests.support.http_service import ALL, Service
from vmrunner.cli import output
from vmrunner.cli.commands import builds, image_template
from vmrunner.config import sources
from vmrunner.errors import ConfigError
from vmrunner.ledger import connections
from vmrunner.runtime.app import App
from vmrunner.store.files import FileStore


@pytest.mark.parametrize("words", [("--insecure-no-auth",), ("--listen", "127.0.0.1:0")])
def test_serving_without_the_extra_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for name in [name for name in sys.modules if name.startswith("vmrunner.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delattr("vmrunner.server.listener", raising=False)
    done = cli("serve", "--until-idle", "--listen", "127.0.0.1:0", *words)
    assert done.code == 2, done.err
    assert b"uvicorn is not installed (pip install 'vmrunner[server]')" in done.err


def test_a_token_that_is_missing_or_wrong_is_told(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(home, None, sources.load().settings)
    monkeypatch.setenv("VMRUNNER_SERVER", service.url)
    done = cli("ps")
    assert (done.code, b"VMRUNNER_TOKEN is not set (export VMRUNNER_TOKEN=" in done.err) == (
        4,
        True,
    )
    monkeypatch.setenv("VMRUNNER_TOKEN", "vmr_wrong")
    done = cli("ps")
    assert (done.code, b"does not take this token: it is mistyped" in done.err) == (4, True)
    assert b"Bearer" not in done.err
    service.close()


def test_people_are_shown_by_the_names_of_their_tokens(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(home, None, sources.load().settings)
    service.runner._host.ensure("fake")
    secret, token = service.app.ledger.tokens.create("ada", ALL, by="test", now=0.0)
    with monkeypatch.context() as far:
        far.setenv("VMRUNNER_SERVER", service.url)
        far.setenv("VMRUNNER_TOKEN", secret)
        build = cli("run", "--", "say", "x").last[3]
        for done in (cli("show", build), cli("ps", "-a", "-o", "wide")):
            assert b"ada" in done.out
            assert token.id.encode() not in done.out
        (item,) = cli("show", build, "-o", "json").items
        assert (item["actor"], item["actor_name"]) == (f"token:{token.id}", "ada")
    for done in (cli("show", build), cli("ps", "-a", "-o", "wide")):
        assert b"ada" in done.out
        assert token.id.encode() not in done.out
    service.close()


def test_doctor_goes_on_where_the_disk_is_full(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    monkeypatch.setattr(FileStore, "put", full, raising=False)
    monkeypatch.setattr("vmrunner.services.doctor.probe", full)
    done = cli("doctor")
    assert b"No space left on device: /data/x" in done.out
    assert b"store: make room" in done.err
    assert b"GiB free" in done.out, "all else is told too"


def test_a_full_disk_is_told_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = OperationalError("", {}, Exception("disk I/O error"))
    url = make_url(f"sqlite:///{tmp_path}/ledger.db")
    assert "see whether its disk is well" in str(connections.translated(error, url))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    message = str(connections.translated(error, url))
    assert "its disk is full: disk I/O error" in message
    assert "free some space" in message


def test_config_show_and_doctor_tell_contradictions(cli: Cli, home: Path) -> None:
    with (home / "vmrunner.toml").open("a") as file:
        file.write('\n[defaults]\ntimeout = "9h"\n[pools.x]\nsize = 1\nhit_rate = 0.5\n')
    shown = cli("config", "show")
    assert shown.code == 0
    assert shown.err.count(b"warning: it cannot work so: ") == 2
    done = cli("doctor")
    assert done.out.count(b"configuration") == 2
    assert b"defaults.timeout: 9h" in done.out


def test_a_watched_list_leaves_the_terminal_as_it_was(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([None, KeyboardInterrupt()])

    def sleep(_: float) -> None:
        if error := next(rounds):
            raise error

    monkeypatch.setattr(builds, "time", SimpleNamespace(sleep=sleep, time=time.time))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = cli("ps", "-a", "-w")
    assert done.code == 130
    assert b"\x1b[3J" not in done.out, "what the terminal had above is lost"
    assert done.out.startswith(b"\x1b[?1049h")
    assert done.out.endswith(b"\x1b[?1049l")
    assert done.out.count(b"\x1b[H\x1b[J") == 2


def test_a_watched_list_fits_the_screen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other screen has no scrollback: the newest ones would be pushed out at its top."""
    for name in ("old", "new"):
        assert cli("run", "--name", name, "--", "say", "x").code == 0

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(builds, "time", SimpleNamespace(sleep=sleep, time=time.time))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(output, "screen_lines", lambda: 5)
    done = cli("ps", "-a", "-w")
    assert b"new" in done.out
    assert b"old" not in done.out
    assert b"only the newest 1; a taller terminal shows more" in done.err
    assert len(cli("ps", "-a", "-o", "json").items) == 2


def test_why_no_template_was_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = SimpleNamespace(name="default", containers=("debian:trixie",))
    monkeypatch.setattr("vmrunner.images.resolve", lambda *_: image)
    shell: Any = SimpleNamespace(app=App(sources.load().settings))
    why = image_template._why_none
    assert why(shell, {}) == "the template for such builds is there already"
    other = {"container": "python:3.12"}
    match = r"'python:3.12' is not in VM image 'default'.*in it: deb"
    with pytest.raises(ConfigError, match=match):
        why(shell, other)
    shell.app.close()
