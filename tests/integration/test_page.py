"""The page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import Visitor
from tests.support.caches import save
from tests.support.http_service import TENANT, Service, only
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http
from tests.support.page_fixtures import visitor as visitor
from tests.support.scripted_app import wait_until
from vmrunner.model import CacheRule, CacheScope

API = "/api/v1"


def submit(client: httpx2.Client, *lines: str, **more: Any) -> str:
    answer = client.post(f"{API}/builds", json={"steps": ["\n".join(lines)], **more})
    name: str = only(answer)["id"]
    return name


def test_builds_come_by_themselves_and_filters_are_in_the_url(
    http: Service, visitor: Visitor
) -> None:
    page = visitor.page
    expect(page.locator("#builds")).to_contain_text("No build here")
    build = submit(http.client(), "say x", name="nightly", labels={"team": "a"})
    expect(page.locator("#builds")).to_contain_text("nightly", timeout=20_000)
    http.ended(build)
    page.click("summary")
    page.fill("input[name=label]", "team=b")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#builds")).to_contain_text("No build here")
    page.goto(f"{http.url}/?label=team%3Da&state=finished")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.click("text=nightly")
    expect(page.locator("h1")).to_contain_text("nightly success")


def test_a_hostile_artifact_is_downloaded_and_never_shown(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = submit(
        http.client(), "artifact out/x.html <script>alert(1)</script>", artifacts=["out/*"]
    )
    http.ended(build)
    page.goto(f"{http.url}/builds/{build}")
    with page.expect_download() as download:
        page.click("#artifacts a.file")
    assert Path(download.value.path()).read_text() == "<script>alert(1)</script>"
    assert page.url == f"{http.url}/builds/{build}"


def test_wishes_are_made_from_the_page(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = submit(http.client(), "sleep 600")
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "running")
    page.goto(f"{http.url}/builds/{build}")
    visitor.press("Cancel")
    expect(page.locator("h1 .pill.cancelled")).to_be_visible(timeout=20_000)
    page.click("text=Run again")
    page.wait_for_url(re.compile(f"/builds/(?!{build})b-"))
    again = page.url.rpartition("/")[2]
    assert http.app.ledger.builds.get(again).spec == http.app.ledger.builds.get(build).spec
    page.goto(f"{http.url}/nodes")
    visitor.press("Drain")
    expect(page.locator(".notice").first).to_contain_text("Launching is stopped")
    assert http.app.ledger.paused
    page.get_by_role("button", name="Launch again").click()
    expect(page.locator("#apart")).to_contain_text("Drain")
    page.goto(f"{http.url}/vms")
    visitor.press("Destroy")
    expect(page.locator("#rows")).to_contain_text("No VM is there", timeout=30_000)
    verbs = [action.verb for action in http.app.ledger.actions.latest()]
    assert verbs[:3] == ["destroy", "undrain", "drain"]
    page.click("text=Log out")
    page.wait_for_url(re.compile("/login"))


def test_vms_name_their_build_and_what_ended_them(http: Service, visitor: Visitor) -> None:
    page, rows = visitor.page, visitor.page.locator("#rows")
    named = submit(http.client(), "sleep 600", name="nightly")
    nameless = submit(http.client(), "sleep 600")
    builds = http.app.ledger.builds
    wait_until(
        lambda: {each.state.value for each in builds.get_all([named, nameless])} == {"running"}
    )
    page.goto(f"{http.url}/vms")
    link = rows.get_by_role("link", name="build nightly")
    expect(link).to_have_text(f"build nightly #{named[2:12]}")
    expect(rows.get_by_role("link", name=f"build #{nameless[2:12]}")).to_be_visible()
    expect(rows).not_to_contain_text("Died of")
    page.set_viewport_size({"width": 620, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 620, "the table scrolls alone"
    for build in (named, nameless):
        http.client().post(f"{API}/builds/{build}/cancel")
        http.ended(build)
    wait_until(lambda: not http.app.ledger.instances.list(active=True))
    page.goto(f"{http.url}/vms?gone=true")
    expect(rows.locator("th")).to_contain_text(["Lived for", "Died of"])
    expect(rows.locator("td[data-label='Died of']").first).not_to_be_empty()
    expect(link).to_have_attribute("href", f"/builds/{named}")


def test_numbers_of_tables_stand_at_the_right(http: Service, visitor: Visitor) -> None:
    http.ended(submit(http.client(), "say x"))
    visitor.page.goto(f"{http.url}/costs")
    look = "cells => cells.map(e => getComputedStyle(e).textAlign)"
    for column in ("Cost", "Builds", "VMs", "Time"):
        cells = visitor.page.locator(f"td[data-label='{column}'], th:text-is('{column}')")
        assert cells.evaluate_all(look) == ["right", "right"], column


def test_a_tenant_sees_its_own_alone(http: Service, browser: Browser) -> None:
    other = submit(http.client(), "say x", labels={"team": "b"}, name="theirs")
    mine = Visitor(browser, http.url, http.token(TENANT, labels={"team": "a"}))
    assert mine.page.locator("nav").first.inner_text().split() == [
        "Overview",
        "Builds",
        "VMs",
        "Costs",
        "Caches",
    ]
    expect(mine.page.locator("#builds")).to_contain_text("No build here")
    assert mine.page.request.get(f"{http.url}/builds/{other}").status == 404
    for path in ("pools", "nodes", "audit", "actions", "tokens"):
        assert mine.page.request.get(f"{http.url}/{path}").status == 403
    mine.close()


def test_on_a_phone_nothing_is_cut_off(http: Service, browser: Browser) -> None:
    build = submit(http.client(), f"say {'x' * 500}", name="a-name-that-is-rather-long")
    long = CacheRule(key="k" * 400, path="/" + "p" * 400)
    save(http.app.ledger, "o", CacheScope(tenant="local", own=""), long)
    http.ended(build)
    phone = Visitor(
        browser, http.url, http.token(), color_scheme="dark", viewport={"width": 360, "height": 700}
    )
    for path in ("/", f"/builds/{build}", "/vms", "/costs", "/caches", "/nodes"):
        phone.page.goto(f"{http.url}{path}")
        wide = phone.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, path
    dark = phone.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(13, 17, 23)"
    phone.close()


def test_the_keyboard_alone_is_enough(http: Service, visitor: Visitor) -> None:
    build = submit(http.client(), "say x", name="nightly")
    http.ended(build)
    page = visitor.page
    page.goto(f"{http.url}/")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "nightly":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"{http.url}/builds/{build}")


def test_a_list_that_is_refreshed_keeps_the_focus(http: Service, visitor: Visitor) -> None:
    build = submit(http.client(), "say x", name="nightly")
    http.ended(build)
    page = visitor.page
    page.goto(f"{http.url}/")
    page.get_by_role("link", name="nightly").focus()
    newer = submit(http.client(), "say x", name="newer")
    page.get_by_role("link", name="newer").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "nightly"
    http.ended(newer)


# --- without a browser's good manners -------------------------------------------------------------


def login(http: Service, **values: str) -> httpx2.Response:
    return http.client("").post("/login", data=values)


def test_a_cookie_dies_with_its_token(http: Service) -> None:
    token = http.token()
    answer = login(http, token=token, next="/vms")
    assert (answer.status_code, answer.headers["location"]) == (303, "/vms")
    header = answer.headers["set-cookie"]
    assert "HttpOnly" in header
    assert "SameSite=strict" in header
    client = http.client("", cookies=dict(answer.cookies))
    assert client.get(f"{API}/builds").status_code == 200
    assert "Content-Security-Policy" in client.get("/").headers
    http.app.ledger.tokens.revoke(http.app.ledger.tokens.list()[-1].id, 1.0)
    assert client.get(f"{API}/builds").status_code == 401


def test_an_upgrade_changes_what_a_browser_has(http: Service) -> None:
    """A file of a wheel is years old, which browsers take for a sign that it stays as it is."""
    client = http.client("")
    answer = client.get("/static/page.js")
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get("/static/page.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_a_browser_is_shown_a_problem_as_a_page(http: Service) -> None:
    client = http.client()
    client.headers["Accept"] = "text/html,*/*;q=0.8"
    answer = client.get("/builds/b-none<i>")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "b-none&lt;i&gt;" in answer.text
    assert "Content-Security-Policy" in answer.headers
    answer = client.get("/", params={"state": "helt"})
    assert (answer.status_code, "did you mean &#39;held&#39;?" in answer.text) == (422, True)
    for path, headers in ((f"{API}/builds/b-none", {}), ("/builds/b-none", {"HX-Request": "true"})):
        answer = client.get(path, headers=headers)
        assert answer.headers["content-type"] == "application/problem+json", path


def test_another_programs_cookie_keeps_nobody_out(http: Service) -> None:
    """A browser sends those of all programs of the host, and of the domains above it."""
    ((name, value),) = login(http, token=http.token()).cookies.items()
    client = http.client("")
    for other in ('seen={"a":1,"b":2}', "list[0]=x", "an odd name=x", "bare", "="):
        shown = {"Cookie": f"{other}; {name}={value}; {other}"}
        assert client.get("/", headers=shown).status_code == 200, other


@pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "wrong"}])
def test_a_forged_request_changes_nothing(http: Service, headers: dict[str, str]) -> None:
    cookies = dict(login(http, token=http.token()).cookies)
    client = http.client("", cookies=cookies)
    assert client.post(f"{API}/drain", headers=headers).status_code == 403
    assert not http.app.ledger.paused


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_a_login_leads_nowhere_else(http: Service, target: str) -> None:
    assert login(http, token=http.token(), next=target).headers["location"] == "/"


def test_a_wrong_token_logs_nobody_in(http: Service) -> None:
    for form in ({"token": "vmr_wrong"}, {"token": ""}, {}, {"token": '"><script>'}):
        answer = login(http, **form)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "<script>" not in answer.text
    foreign = {"Sec-Fetch-Site": "cross-site"}
    refused = http.client("").post("/login", data={"token": http.token()}, headers=foreign)
    assert refused.status_code == 403
