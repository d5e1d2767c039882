"""Engines in the background, where none can be started."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.config.paths import Paths
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.runtime import background


def test_an_engine_without_settings_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def ledger() -> None:
        raise AssertionError("nothing joins it")

    monkeypatch.setattr(Path, "replace", full)
    engines = background.BackgroundEngines(
        ledger,  # type: ignore[arg-type]
        Settings,
        Paths(data=tmp_path, cache=tmp_path),
        ("false",),
    )
    with pytest.raises(ConfigError, match=f"No space left .*{tmp_path}"):
        engines.spawn()
    assert list(tmp_path.iterdir()) == []
