"""The live line of `vmrunner run` on a terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from vmrunner.cli import output
from vmrunner.cli.exit_codes import ExitNow
from vmrunner.cli.follow import StatusLine, TerminalFollower
from vmrunner.model import BuildEvent, BuildRecord, BuildSpec, BuildState, EventKind, Phase

TOOK = 100.0
DONE = (BuildState.QUEUED, BuildState.PROVISIONING, BuildState.CONNECTING, BuildState.PREPARING)


def phase(state: BuildState, started: float) -> Phase:
    return Phase(state=state, started=started, ended=started + TOOK)


BUILD = BuildRecord(
    id="b-01hzzzzzzzzzzzzzzzzzzzzzzz",
    state=BuildState.RUNNING,
    spec=BuildSpec(steps=(), container="c", provider="p", timeout=60, ttl=120),
    created_at=0,
    state_since=TOOK * len(DONE),
    phases=tuple(phase(state, TOOK * n) for n, state in enumerate(DONE)),
)


def drawn(columns: int, monkeypatch: pytest.MonkeyPatch, **fields: str) -> str:
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(stream, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(output, "_live", False)  # no later test's words take the line away
    monkeypatch.setattr(output, "ready", lambda *_: True)
    monkeypatch.setattr(
        output.os, "get_terminal_size", lambda _: type("", (), {"columns": columns})
    )
    line = StatusLine(live=True, may_draw=lambda: True, now=lambda: BUILD.state_since + 7)
    line.update(BUILD, BUILD.state_since + 60, **fields)
    return stream.getvalue().removeprefix("\r\x1b[K")


def test_a_wide_terminal_shows_all_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(120, monkeypatch) == (
        "b-01hzzzzz ─ queued 1m40s ─ provisioning 1m40s ─ connecting 1m40s ─ preparing 1m40s"
        " ─ running ⠙ 7.0s   VM ends in 53s"
    )


@pytest.mark.parametrize("columns", [0, 80, 60, 40])
def test_a_narrow_one_shows_the_present(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After slow phases it was all of the past, cut off before the phase that lasts."""
    line = drawn(columns, monkeypatch)
    assert line.endswith("running ⠙ 7.0s   VM ends in 53s")
    assert len(line) < (columns or 80)


def test_the_present_has_its_progress_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    line = drawn(120, monkeypatch, hint=" (2m00s the last time)", progress="12.0 MiB have come")
    assert line.endswith(
        "running ⠙ 7.0s (2m00s the last time), 12.0 MiB have come   VM ends in 53s"
    )
    assert drawn(120, monkeypatch, progress="12.0 MiB have come").endswith(
        "running ⠙ 7.0s, 12.0 MiB have come   VM ends in 53s"
    )


def test_who_leaves_early_finds_a_prompt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood behind the live line of a build that goes on without them."""
    drawn(80, monkeypatch)
    signals = SimpleNamespace(count=1, code=130, sleep=None)
    follower = TerminalFollower(MagicMock(), MagicMock(), BUILD.id, MagicMock(), signals, own=False)
    with pytest.raises(ExitNow):
        follower._leave_if_told()
    assert sys.stderr.getvalue().endswith("VM ends in 53s\r\x1b[K")


def test_artifacts_told_before_their_phase_is_seen_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row was read, then it began to collect: its events are younger than the row."""
    service, events = MagicMock(), MagicMock()
    service.ledger.events.list = events
    came = BuildEvent(
        seq=1, time=1.0, kind=EventKind.COLLECTING, data={"attempt": 1, "bytes": 12 << 20}
    )
    events.side_effect = [[came], []]
    follower = TerminalFollower(service, MagicMock(), BUILD.id, MagicMock(), MagicMock(), own=False)
    monkeypatch.setattr(follower._follower, "patiently", lambda call: call())
    row = replace(BUILD, attempt=1)
    for state in (BuildState.RUNNING, BuildState.COLLECTING):
        follower._look(replace(row, state=state))
    assert "12.0 MiB of artifacts have come" in capsys.readouterr().err
