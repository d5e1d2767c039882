"""A vmrunner in this process, over one fake cloud, in a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vmrunner
from tests.support.command_line import isolated
from tests.support.scripted_app import CountedApp
from vmrunner.config.settings import Settings

PROVIDERS = {"fake": {"kind": "fake"}}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedApp:
    isolated(tmp_path, monkeypatch)
    return CountedApp(Settings.model_validate({"providers": PROVIDERS}))


@pytest.fixture
def runner(app: CountedApp) -> Iterator[vmrunner.Runner]:
    with vmrunner.Runner(app=app) as runner:
        yield runner
