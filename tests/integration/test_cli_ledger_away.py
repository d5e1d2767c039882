"""A ledger that is out of reach while a build is followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Cli
from vmrunner.errors import LedgerError
from vmrunner.ledger.logs import Logs
from vmrunner.runtime.background import BackgroundEngines


def away(times: float) -> Callable[..., Any]:
    """`Logs.read`, that fails so often from its third call on."""
    read, calls = Logs.read, iter(range(1_000_000))

    def broken(*arguments: Any, **keywords: Any) -> Any:
        if 2 <= next(calls) < 2 + times:
            raise LedgerError("the ledger's database failed: away")
        return read(*arguments, **keywords)

    return broken


def test_a_ledger_that_is_briefly_away_is_waited_for(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.services.follow.LEDGER_RETRY", 0.01)
    monkeypatch.setattr(Logs, "read", away(5))
    done = cli("run", "--", "say", "hello")
    assert (done.code, done.out) == (0, b"hello\n")
    assert done.err.count(b"waiting for the ledger: the ledger's database failed: away") == 1


def test_a_lasting_ledger_outage_ends_the_wait_and_the_vm(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[BackgroundEngines] = []
    monkeypatch.setattr("vmrunner.services.follow.LEDGER_RETRY", 0.01)
    monkeypatch.setattr("vmrunner.services.follow.LEDGER_TIMEOUT", 0.2)
    monkeypatch.setattr(Logs, "read", away(float("inf")))
    monkeypatch.setattr(BackgroundEngines, "spawn", lambda self: spawned.append(self))
    (home / "go.yml").write_text('{"jobs": {"j": {"steps": ["say hello\\nsleep 60"]}}}')
    done = cli("run", "-f", "go.yml", "j")
    assert done.code == 125
    assert b"hello\n".startswith(done.out)
    assert done.err.endswith(b"vmrunner: error: the ledger's database failed: away\n")
    (build,) = cli("ps", "-a", "-o", "json").items
    assert build["cancel"] == "user"
    assert len(spawned) == 1
