"""The example of a service: up, a build from a client that has nothing, its page, and down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium
from tests.vm.home import CACHE, FOREIGN, SIZE, processes_with, text

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).parents[2] / "examples/service"


def run(program: str, place: Path) -> subprocess.CompletedProcess[bytes]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    env = kept | {"XDG_CACHE_HOME": CACHE, **SIZE}
    return subprocess.run(
        [EXAMPLE / program, place], env=env, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "service"
    yield found
    run("down", found)  # of a test that failed


def test_the_service_comes_up_shows_its_build_and_goes(place: Path, tmp_path: Path) -> None:
    up = run("up", place)
    assert up.returncode == 0, text(up.stderr)
    assert b"from a fresh VM\n" in up.stdout
    url, token = ((place / name).read_text().strip() for name in ("url", "token"))
    postgres = Path((place / "postgres").read_text().strip())
    assert url.startswith("http://127.0.0.1:")
    with chromium(tmp_path) as browser:
        page = browser.new_page()
        page.goto(url)
        page.fill("input[name=token]", token)
        page.click("button")
        page.click("tbody a:has-text('example')")
        expect(page.locator("h1")).to_contain_text("example success")
        expect(page.locator("#log")).to_contain_text("from a fresh VM")
        page.click("nav a:has-text('Nodes')")
        expect(page.locator("tbody tr:has-text('serve')")).to_have_count(2)
        page.click("nav a:has-text('VMs')")
        expect(page.locator("#rows")).to_contain_text("No VM is there", timeout=60_000)
    down = run("down", place)
    assert down.returncode == 0, text(down.stderr)
    assert (place.exists(), postgres.exists()) == (False, False)
    assert list(processes_with([str(place), str(postgres)])) == []
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/healthz")
