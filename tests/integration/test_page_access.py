"""Pages for who cannot see well, or has no mouse: axe finds nothing, keys do everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Visitor
from tests.support.caches import save
from tests.support.http_service import Service, only, service
from tests.support.page_fixtures import browser as browser
from tests.support.scripted_app import wait_until
from vmrunner.model import CacheRule, CacheScope

API = "/api/v1"
POOLS = {"fast": {"provider": "fake", "size": 1, "ttl": "1h"}}
BUDGETS = [{"match": {}, "usd_per_day": 20}]
PAGES = (
    "/overview", "/", "/?state=queued&name=none", "/?label=core", "/vms", "/vms?gone=true",
    "/costs", "/caches", "/pools", "/nodes", "/audit", "/actions", "/tokens", "/nowhere",
)  # fmt: skip


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    login = {"name": "example", "issuer": "https://id.example.org", "client_id": "x"}
    rules = [{"match": {"groups": "x"}}]
    server = {"url": "http://127.0.0.1", "login": [login | {"rules": rules}]}
    with service(tmp_path, budgets=BUDGETS, server=server) as found:
        found.runner._host.ensure("fake")
        yield found


def faults(page: Page) -> list[str]:
    """What axe finds wrong."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


def submit(http: Service, name: str, step: str, **more: object) -> str:
    body = {"steps": [step], "name": name, **more}
    build: str = only(http.client().post(f"{API}/builds", json=body))["id"]
    return build


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(http: Service, browser: Browser, scheme: str) -> None:
    for step in ("say x", "exit 2"):
        http.ended(submit(http, "ended", step, labels={"team": "core"}))
    running = submit(http, "runs", "sleep 600")
    wait_until(lambda: http.app.ledger.builds.get(running).state.value == "running")
    http.app.ledger.pause(True, 1.0)
    submit(http, "waits", "say x")
    save(http.app.ledger, "o", CacheScope(tenant="local", own=""), CacheRule(key="k", path="/p"))
    visitor = Visitor(browser, http.url, http.token(), color_scheme=scheme)
    page, wrong = visitor.page, {}
    for path in PAGES:
        page.goto(f"{http.url}{path}")
        if found := faults(page):
            wrong[path] = found
    page.goto(f"{http.url}/vms")
    page.get_by_role("button", name="Destroy").first.click()
    wrong["dialog"] = faults(page)
    visitor.context.clear_cookies()
    page.goto(f"{http.url}/login")
    wrong["login"] = faults(page)
    assert {path: found for path, found in wrong.items() if found} == {}
    visitor.context.close()


def test_what_ends_something_can_be_left_by_key(http: Service, browser: Browser) -> None:
    """Enter on the button asks; Enter again, and Escape, leave it; the button has the focus."""
    running = submit(http, "runs", "sleep 600")
    wait_until(lambda: http.app.ledger.builds.get(running).state.value == "running")
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    page.goto(f"{http.url}/vms")
    button, dialog = page.get_by_role("button", name="Destroy").first, page.get_by_role("dialog")
    for key in ("Enter", "Escape"):
        button.focus()
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("Its build ends with it")
        page.keyboard.press(key)
        expect(dialog).to_be_hidden()
        expect(button).to_be_focused()
    assert http.app.ledger.builds.get(running).state.value == "running"
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Destroy")).to_be_focused()
    with page.expect_response("**/destroy") as response:
        page.keyboard.press("Enter")
    assert response.value.json()["result"] in ("gone", "asked"), response.value.text()
    wait_until(lambda: http.app.ledger.builds.get(running).finished)
    visitor.close()


def test_a_wrong_token_can_be_typed_anew(http: Service, browser: Browser) -> None:
    """The field has the focus and says what was wrong, beside issuers too."""
    page = browser.new_context().new_page()
    page.goto(f"{http.url}/login")
    field = page.get_by_label("Token")
    field.fill("vmr_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is no valid token.")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description("That is no valid token.")
    assert faults(page) == []
    page.keyboard.type(http.token())
    page.keyboard.press("Enter")
    page.wait_for_url(f"{http.url}/")
    page.context.close()


def test_the_first_key_leads_past_the_links(http: Service, browser: Browser) -> None:
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    visitor.close()
