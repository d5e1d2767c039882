"""A vmrunner in this process, over one fake cloud, in a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vmrunner
from tests.support.command_line import isolated
from tests.support.scripted_app import CountedWiring
from vmrunner.config.settings import Settings

PROVIDERS = {"fake": {"kind": "fake"}}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedWiring:
    isolated(tmp_path, monkeypatch)
    return CountedWiring(Settings.model_validate({"providers": PROVIDERS}))


@pytest.fixture
def runner(app: CountedWiring) -> Iterator[vmrunner.Runner]:
    with vmrunner.Runner(app=app) as runner:
        yield runner
