"""Artifacts over HTTP: that another node brought, and that have odd names."""

from __future__ import annotations

import os
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
    body = {"steps": ["artifact a x"], "artifacts": ["a"]}
    build = only(http.client().post(f"{API}/builds", json=body))["id"]
    http.ended(build)
    (place,) = http.app.paths.artifacts.glob(f"{build}.*")
    place.rename(tmp_path / "there")
    monkeypatch.setattr(artifacts, "time", Waits(lambda: (tmp_path / "there").rename(place)))
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        found = runner.get(build).artifacts
        assert found.known() == []
        assert [path.name for path in found.download(tmp_path / "to")] == ["a"]
    assert (tmp_path / "to/a").read_text().strip() == "x"


def test_a_name_that_is_no_utf8_is_listed_and_served(http: Service, tmp_path: Path) -> None:
    """A build calls its files as it likes."""
    client, odd = http.client(), os.fsdecode(b"odd-\xff")
    body = {"steps": ["artifact a x"], "artifacts": ["*"]}
    build = only(client.post(f"{API}/builds", json=body))["id"]
    http.ended(build)
    (place,) = http.app.paths.artifacts.glob(f"{build}.*")
    (place / odd).write_text("odd")
    assert only(client.get(f"{API}/builds/{build}"))["artifacts_back"][1]["path"] == odd
    page = client.get(f"/builds/{build}")
    assert (page.status_code, "odd-\ufffd</a>" in page.text) == (200, True)
    for shown in ("odd-%FF", "odd-%EF%BF%BD"):
        assert client.get(f"{API}/builds/{build}/artifacts/{shown}").text == "odd"
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        found = runner.get(build).artifacts
        assert found.ls() == http.runner.get(build).artifacts.ls()
        assert found.download(tmp_path / "to", odd) == [tmp_path / "to" / odd]


class Waits:
    """A clock of which the first pause brings something about."""

    def __init__(self, event: Callable[[], object]) -> None:
        self._events = [event]

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, _seconds: float) -> None:
        self._events.pop()()
