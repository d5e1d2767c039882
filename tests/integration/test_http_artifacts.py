"""Artifacts over HTTP that another node brought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import vmrunner
from tests.support.http_service import Service, only
from vmrunner.services import artifacts

API = "/api/v1"


def test_a_client_waits_for_artifacts_of_another_node(
    http: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one address are several nodes: who is asked did not bring them."""
    asked = {"steps": ["artifact a x"], "artifacts": ["a"]}
    build = only(http.client().post(f"{API}/builds", json=asked))["id"]
    http.ended(build)
    (place,) = http.app.paths.artifacts.glob(f"{build}.*")
    place.rename(tmp_path / "there")
    monkeypatch.setattr(artifacts, "time", Waits(lambda: (tmp_path / "there").rename(place)))
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        found = runner.get(build).artifacts
        assert found.known() == []
        assert [path.name for path in found.download(tmp_path / "to")] == ["a"]
    assert (tmp_path / "to/a").read_text().strip() == "x"


class Waits:
    """A clock of which the first pause brings something about."""

    def __init__(self, event: Callable[[], object]) -> None:
        self._events = [event]

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, _seconds: float) -> None:
        self._events.pop()()
