"""Fixtures of tests that look at the page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Visitor, chromium
from tests.support.http_service import Service, only, service


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, one for the tests of a file."""
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service with an engine of its own over the fake provider."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as found:
        found.runner._host.ensure("fake")
        yield found


@pytest.fixture
def visitor(browser: Browser, http: Service) -> Iterator[Visitor]:
    """A browser that is logged in."""
    found = Visitor(browser, http.url, http.token())
    yield found
    found.close()


def submit(http: Service, *steps: str, **more: object) -> str:
    """A new build's id."""
    answer = http.client().post("/api/v1/builds", json={"steps": list(steps), **more})
    build: str = only(answer)["id"]
    return build
