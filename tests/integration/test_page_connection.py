"""Pages whose login is over, or whose server is away: they say so, and go on by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.support.browser import Visitor
from tests.support.http_service import Service, only
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http

API = "/api/v1"
SOON = 15_000  # milliseconds: a few polls


@pytest.fixture
def visitor(browser: Browser, http: Service) -> Iterator[Visitor]:
    found = Visitor(browser, http.url, http.token())
    yield found
    found.context.close()  # Chromium notes what it was refused as an error


def submit(http: Service, *lines: str, **more: Any) -> str:
    body = {"steps": ["\n".join(lines)], **more}
    name: str = only(http.client().post(f"{API}/builds", json=body))["id"]
    return name


def end_logins(http: Service) -> None:
    for token in http.app.ledger.tokens.list():
        http.app.ledger.tokens.revoke(token.id, 1.0)


@pytest.mark.parametrize("path", ["/", "/nodes"])
def test_a_list_says_that_its_login_is_over(http: Service, visitor: Visitor, path: str) -> None:
    page = visitor.page
    http.ended(submit(http, "say x", name="nightly"))
    page.goto(f"{http.url}{path}")
    rows = page.locator("main").inner_text()
    end_logins(http)
    link = page.locator("#connection a")
    expect(link).to_have_text("Log in", timeout=SOON)
    assert page.locator("main").inner_text().split()[:3] == rows.split()[:3], "it stays"
    link.click()
    page.fill("input[name=token]", http.token())
    page.click("button")
    page.wait_for_url(f"{http.url}{path}")


def test_a_login_in_another_tab_makes_the_notice_go(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    end_logins(http)
    expect(page.locator("#connection")).to_contain_text("Your login is over", timeout=SOON)
    other = visitor.context.new_page()
    other.goto(f"{http.url}/login")
    other.fill("input[name=token]", http.token())
    other.click("button")
    other.wait_for_url(f"{http.url}/")
    expect(page.locator("#connection")).to_be_empty(timeout=SOON)


def test_a_lost_server_is_told_until_it_is_back(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(f"{http.url}/nodes")
    page.route("**/*", lambda route: route.abort("connectionrefused"))
    notice = page.locator("#connection")
    expect(notice).to_contain_text("No answer from the server since", timeout=SOON)
    text = notice.inner_text()
    visitor.press("Drain")
    expect(page.locator("#told")).to_contain_text("does not answer")
    assert notice.inner_text() == text, "since when is said once"
    page.unroute("**/*")
    expect(notice).to_be_empty(timeout=SOON)


def test_a_server_without_its_ledger_says_so(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    http.ended(submit(http, "say x", name="nightly"))
    expect(page.locator("#builds")).to_contain_text("nightly", timeout=SOON)

    def away(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "the ledger is away"})

    page.route("**/*", away)
    expect(page.locator("#connection")).to_contain_text("cannot answer since", timeout=SOON)
    expect(page.locator("#builds")).to_contain_text("nightly")
    page.unroute("**/*")
    expect(page.locator("#connection")).to_be_empty(timeout=SOON)


def test_what_did_not_change_is_not_sent_again(http: Service) -> None:
    client = http.client()
    client.headers.update({"Accept": "text/html", "HX-Request": "true"})
    answer = client.get("/tokens")
    again = client.get("/tokens", headers={"If-None-Match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code, again.content) == (200, 304, b"")
    http.app.ledger.pause(True, 1.0)
    changed = client.get("/tokens", headers={"If-None-Match": answer.headers["etag"]})
    assert changed.status_code == 200
