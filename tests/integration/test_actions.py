"""Table `actions`: what somebody did that concerns no build, whichever door was taken."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.blackbox import TTL, data_of, tags_of
from tests.support.blackbox import cli as blackbox  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.command_line import Cli
from tests.support.file_cloud import FileCloud
from tests.support.http_service import Service
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.actions import Actions
from vmrunner.services import gc, reap

__all__ = ["blackbox"]
ME = f"local:{os.getuid()}@{socket.gethostname()}"


def noted(ledger: Ledger) -> list[tuple[str, ...]]:
    """Who did what to what, oldest first."""
    return [tuple(action[1:]) for action in reversed(ledger.actions.latest())]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (("reap",), ("reap", "all", "")),
        (("reap", "--provider", "fake"), ("reap", "fake", "")),
        (("reap", "--orphans"), ("reap", "all", "orphans")),
        (("gc",), ("gc", "all", "")),
        (("gc", "--orphans"), ("gc", "all", "orphans")),
        (("db", "rotate-key"), ("rotate-key", "ledger", "")),
        (("vm", "destroy", "--all-expired"), ("destroy", "all-expired", "")),
    ],
)
def test_what_somebody_does_at_the_ledger_is_noted_once(
    cli: Cli, ledger_at_home: Ledger, words: tuple[str, ...], action: tuple[str, ...]
) -> None:
    done = cli(*words)
    assert done.code == 0, done.err
    assert noted(ledger_at_home) == [(ME, *action)]


def test_the_end_of_a_rotation_is_noted(
    cli: Cli, ledger_at_home: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("db", "rotate-key")
    assert cli("db", "rotate-key", "--finish").code == 5, "it is too early"
    monkeypatch.setattr("vmrunner.services.key_rotation.SETTLED", 0.0)
    assert cli("db", "rotate-key", "--finish").code == 0
    assert noted(ledger_at_home) == [
        (ME, "rotate-key", "ledger", ""),
        (ME, "rotate-key", "ledger", "finish"),
    ]


@pytest.mark.parametrize("words", [("reap",), ("reap", "--orphans"), ("gc",)])
def test_a_dry_run_is_no_action(cli: Cli, ledger_at_home: Ledger, words: tuple[str, ...]) -> None:
    assert cli(*words, "--dry-run").code == 0
    assert noted(ledger_at_home) == []


def test_the_same_is_noted_by_whichever_door(http: Service) -> None:
    admin = http.client()
    (token,) = http.app.ledger.tokens.list()
    for body in ({}, {"orphans": True}, {"provider": "fake"}, {"dry_run": True}):
        assert admin.post("/api/v1/reap", json=body).status_code == 200
    assert noted(http.app.ledger) == [
        (f"token:{token.id}", "reap", "all", ""),
        (f"token:{token.id}", "reap", "all", "orphans"),
        (f"token:{token.id}", "reap", "fake", ""),
    ]


def test_what_serve_does_by_itself_is_no_action(http: Service) -> None:
    app = http.app
    reap.reap(app.ledgers, app.providers, app.limits(), app.paths, by=None)
    gc.gc(app.ledger, app.settings, app.paths, lambda: app.store, by=None)
    assert noted(app.ledger) == []


def test_a_reap_ends_what_it_cannot_be_noted_for(
    blackbox: Cli, cloud: FileCloud, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its deadline a kill needs no ledger."""

    def away(*_: object) -> None:
        raise LedgerError("the ledger's database failed: away")

    blackbox("ps")
    for words in (("reap",), ("vm", "destroy", "--all-expired")):
        late = cloud.plant("fake", tags_of(home, "vm-late", cloud.now() - 100))
        with monkeypatch.context() as patched:
            patched.setattr(Actions, "add", away)
            done = blackbox(*words)
        assert late not in cloud.alive()
        assert done.code == 0, done.err
        assert b"not noted" in done.err
    late = cloud.plant("fake", tags_of(home, "vm-late", cloud.now() + TTL))
    cloud.advance(TTL + 600)
    (data_of(home) / "ledger.db").write_bytes(b"nonsense" * 1000)
    assert blackbox("reap").code == 7
    assert late not in cloud.alive()
