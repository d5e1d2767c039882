"""Waits that take minutes: told of with how long they took the last time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pytest

from vmrunner.cli import exit_codes, last_times
from vmrunner.cli.commands import ssh
from vmrunner.cli.follow import PullNotice
from vmrunner.cli.last_times import LastTimes
from vmrunner.core.boxes import DockerBox
from vmrunner.model import BuildEvent, BuildRecord, BuildSpec, BuildState, EventKind, Step

RUNNING: Final = BuildRecord(
    id="b-1",
    state=BuildState.RUNNING,
    spec=BuildSpec(
        steps=(Step(run="make"),), container="python:3", provider="p", timeout=60, ttl=120
    ),
    created_at=0,
    state_since=0,
)


def event(kind: EventKind, at: float) -> BuildEvent:
    return BuildEvent(seq=1, time=at, kind=kind)


def test_a_pull_says_what_it_took_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running, step = replace(RUNNING, attempt=1), "pull: python:3"
    died = PullNotice(LastTimes(tmp_path))
    died.tell(running, [event(EventKind.PULLING, 100.0)])
    assert capsys.readouterr().err.endswith("it is not in the VM image\n")
    second = replace(RUNNING, attempt=2)
    died.tell(second, [event(EventKind.STEP_STARTED, 999.0)])
    assert LastTimes(tmp_path).seconds(step) is None, "the second attempt pulled nothing"
    whole = PullNotice(LastTimes(tmp_path))
    whole.tell(running, [event(EventKind.PULLING, 100.0)])
    assert whole.may_come(running)
    whole.tell(running, [event(EventKind.CONTAINER, 220.0)])
    assert not whole.may_come(running)
    capsys.readouterr()
    PullNotice(LastTimes(tmp_path)).tell(running, [event(EventKind.PULLING, 500.0)])
    assert capsys.readouterr().err.endswith("VM image (2m00s the last time)\n")


def test_a_container_started_again_says_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, lines, code = [0.0], list[list[str]](), [0]

    def run(_: Any, __: Any, words: list[str], *, stdin: bool) -> int:
        assert not stdin  # who types is not heard yet
        now[0] += 40
        lines.append(words)
        return code[0]

    monkeypatch.setattr(last_times, "LastTimes", partial(LastTimes, tmp_path, clock=lambda: now[0]))
    monkeypatch.setattr(ssh, "_ssh", run)
    monkeypatch.setattr(ssh, "_stream", lambda *_: None)
    again = partial(ssh._start_again, *cast("tuple[Any, Any, Any]", (None,) * 3), DockerBox())
    again()
    assert "may take a minute" in capsys.readouterr().err
    again()
    assert "started again (40s the last time)\n" in capsys.readouterr().err
    assert lines[0] == DockerBox().inside(["true"], held=True, terminal="")
    code[0] = 125
    with pytest.raises(exit_codes.ExitNow) as failed:
        again()
    assert failed.value.code == 125
