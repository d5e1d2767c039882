"""The last step of a submission: queued once, known to whoever serves, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmrunner
from tests.support.scripted_app import CountedApp
from vmrunner.api.keywords import build_request
from vmrunner.config.settings import Settings
from vmrunner.ledger.builds import Builds
from vmrunner.lib import wakeup
from vmrunner.lib.wakeup import Listener
from vmrunner.model import Reason


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[vmrunner.Runner]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    app = CountedApp(Settings.model_validate({"providers": {"fake": {"kind": "fake"}}}))
    with vmrunner.Runner(app=app) as runner:
        yield runner


def test_a_build_interrupted_in_its_commit_is_cancelled(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Builds.submit

    def interrupted(*given: Any, **named: Any) -> None:
        submit(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(Builds, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vmrunner.Sandbox.create(runner=runner)
    (build,) = runner.list()
    assert build.row.cancel is Reason.USER


def test_one_interrupted_right_after_it_is_cancelled_too(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the caller has its id: a sandbox that nobody knows of would live out its time."""

    def interrupted(_: Path) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(wakeup, "poke", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vmrunner.Sandbox.create(runner=runner)
    (build,) = runner.list()
    assert build.row.cancel is Reason.USER


def test_whoever_serves_hears_of_each_submission(runner: vmrunner.Runner) -> None:
    """Else a build that a VM waits for waits for the next poll."""
    listener = Listener(runner.app.paths.wake, "another")
    try:
        runner.enter(build_request("say a", {}))
        assert listener.wait(0)
    finally:
        listener.close()
