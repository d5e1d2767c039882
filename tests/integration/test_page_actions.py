"""What a reader does on the page: questions, focus, logins that end amid it, and browsers that show
it otherwise."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import Visitor
from tests.support.caches import save
from tests.support.http_service import Service
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http
from tests.support.page_fixtures import submit
from tests.support.page_fixtures import visitor as visitor
from tests.support.scripted_app import wait_until
from vmrunner.model import CacheRule, CacheScope

API = "/api/v1"
SOON = 20_000  # milliseconds


def running(http: Service, **more: object) -> str:
    build = submit(http, "sleep 600", **more)
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "running")
    return build


def log_in(page: Page, http: Service) -> None:
    page.goto(f"{http.url}/login")
    page.fill("input[name=token]", http.token())
    page.click("button")
    page.wait_for_url(f"{http.url}/")


# --- its questions ---


def test_a_poll_changes_no_question(http: Service, visitor: Visitor) -> None:
    """Another drains while one is asked: what is confirmed is the drain, not what the button became
    meanwhile."""
    page = visitor.page
    page.goto(f"{http.url}/nodes")
    page.get_by_role("button", name="Drain").click()
    http.client().post(f"{API}/drain", json={})
    expect(page.locator("#apart")).to_contain_text("Launch again", timeout=SOON)
    with page.expect_response("**/api/v1/drain"):
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    assert http.app.ledger.paused


def test_a_question_names_what_goes(http: Service, visitor: Visitor) -> None:
    page, dialog = visitor.page, visitor.page.get_by_role("dialog")
    save(http.app.ledger, "o", CacheScope(tenant="local", own=""), CacheRule(key="pip-9", path="/"))
    build = running(http, name="nightly")
    held = submit(http, "exit 2", name="ill", keep_on_failure="20m")
    wait_until(lambda: http.app.ledger.builds.get(held).state.value == "held")
    for path, row, words in (
        ("/caches", "pip-9", "Remove the cache pip-9?"),
        ("/vms", "nightly", "as cancelled: build nightly"),
        ("/vms", "ill", "stays as it ended: build ill"),
    ):
        page.goto(f"{http.url}{path}")
        page.locator("tbody tr", has_text=row).get_by_role("button").click()
        expect(dialog).to_contain_text(words)
    page.goto(f"{http.url}/builds/{build}")
    page.click("#cancel")
    expect(dialog.get_by_role("button")).to_have_text(["Leave it", "Cancel the build"])
    page.goto(f"{http.url}/builds/{held}")
    page.click("#cancel")
    expect(dialog).to_contain_text("The build stays as it ended: failure.")
    dialog.get_by_role("button", name="Destroy the VM").click()
    expect(page.locator("h1 .pill.held")).to_have_count(0, timeout=SOON)
    expect(page.locator("h1 .pill")).to_have_text("failure (2)")


def test_a_row_is_ended_without_a_reload(http: Service, visitor: Visitor) -> None:
    """Whoever uses keys goes on where he was."""
    page = visitor.page
    for key in "abc":
        scope = CacheScope(tenant="local", own="")
        save(http.app.ledger, key, scope, CacheRule(key=f"key-{key}", path="/p"))
    page.goto(f"{http.url}/caches")
    page.evaluate("window.same = true")
    row = page.locator("tbody tr", has_text="key-b")
    row.get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)
    assert page.evaluate("window.same")
    other = http.app.ledger.tokens.list()[-1].id
    log_in(page, http)
    page.goto(f"{http.url}/tokens")
    page.evaluate("window.same = true")
    page.locator(f"#row-{other}").get_by_role("button").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.locator("#rows .revoked")).to_have_text("revoked")
    assert page.evaluate("window.same")


def test_what_is_refused_leaves_the_focus(http: Service, browser: Browser) -> None:
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    build = running(http)
    page.goto(f"{http.url}/builds/{build}")

    def refused(route: Route) -> None:
        route.fulfill(status=409, json={"detail": "not now", "fix": "try later"})

    page.route("**/cancel", refused)
    page.locator("#cancel").focus()
    for key in ("Enter", "Tab", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#told")).to_have_text("not now: try later")
    # What has no focus loses it with the next frame.
    page.evaluate("new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)))")
    expect(page.locator("#cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#told")).to_be_empty()
    visitor.context.close()


def test_a_vm_kept_longest_is_not_kept_longer(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    held = submit(http, "exit 2", keep_on_failure="40m")
    wait_until(lambda: http.app.ledger.builds.get(held).state.value == "held")
    page.goto(f"{http.url}/builds/{held}")
    button = page.locator("#extend")
    expect(button).to_have_text("Keep its VM 20 minutes longer")
    button.click()
    expect(button).to_have_text("Kept until its VM ends")
    expect(button).to_be_disabled()


# --- a login that ends, or is another ---


def test_a_button_tells_that_the_login_is_over(http: Service, browser: Browser) -> None:
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    build = running(http)
    page.goto(f"{http.url}/builds/{build}")
    page.click("#cancel")
    for token in http.app.ledger.tokens.list():
        http.app.ledger.tokens.revoke(token.id, 1.0)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#told")).to_have_text("Nothing was done: your login is over.")
    expect(page.locator("#connection a")).to_have_text("Log in")
    assert not http.app.ledger.builds.get(build).finished
    visitor.context.close()


def test_buttons_work_after_a_login_in_another_tab(http: Service, browser: Browser) -> None:
    """Of the new login is another secret against forged requests."""
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    build = running(http)
    page.goto(f"{http.url}/builds/{build}")
    before = page.locator("#paused").get_attribute("data-csrf")
    log_in(visitor.context.new_page(), http)
    expect(page.locator("#paused")).not_to_have_attribute("data-csrf", before or "", timeout=SOON)
    visitor.press("Cancel")
    expect(page.locator("h1 .pill.cancelled")).to_be_visible(timeout=SOON)
    visitor.close()


# --- browsers that show it otherwise ---


def test_empty_pages_say_what_would_be_there(http: Service) -> None:
    client = http.client()
    for path, words in (
        ("caches", "<code>--cache KEY=PATH</code>"),
        ("actions", "makes or revokes a token"),
        ("pools", "<code>[pools.NAME]</code>"),
        ("vms", "Each build gets one"),
        ("costs", "Nothing was spent in the last 7d"),
    ):
        assert words in client.get(f"/{path}").text, path


def test_without_javascript_a_page_says_so(http: Service, browser: Browser) -> None:
    build = submit(http, "many 20")
    http.ended(build)
    visitor = Visitor(browser, http.url, http.token(), java_script_enabled=False)
    page = visitor.page
    # Chromium renders no <noscript> where only its debugger keeps scripts from running.
    assert "Without JavaScript" in page.content()
    page.goto(f"{http.url}/builds/{build}")
    expect(page.locator("h1")).to_contain_text("success")
    page.get_by_role("link", name="Raw").click()
    expect(page.locator("body")).to_contain_text("line 20 of many")
    visitor.close()


def test_forced_colours_leave_what_is_chosen_visible(http: Service, browser: Browser) -> None:
    """Backgrounds and shadows are not shown then."""
    http.ended(submit(http, "exit 2"))
    visitor = Visitor(browser, http.url, http.token(), forced_colors="active")
    look = "e => getComputedStyle(e).outlineStyle + getComputedStyle(e).borderStyle"
    for chosen in (".counts [aria-current]", "header nav [aria-current]"):
        assert "solid" in visitor.page.locator(chosen).evaluate(look), chosen
    for shown in (".mark", ".pill"):
        style = "e => getComputedStyle(e).borderTopStyle"
        assert visitor.page.locator(f"tbody {shown}").first.evaluate(style) == "solid"
    visitor.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_printed_log_is_whole_and_dark_on_white(
    http: Service, browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    build = submit(http, "many 200\nhex 1b5b33376d77686974651b5b306d0a")
    http.ended(build)
    visitor = Visitor(browser, http.url, http.token(), color_scheme=scheme)
    page = visitor.page
    page.goto(f"{http.url}/builds/{build}")
    page.locator("#L201").wait_for()
    page.emulate_media(media="print", color_scheme=scheme)
    for gone in ("header", "#search", "#again"):
        expect(page.locator(gone)).to_be_hidden()
    assert page.evaluate("log.scrollHeight - log.clientHeight") <= 1
    colour = "e => getComputedStyle(e).color"
    assert page.locator("#L201 .c7").evaluate(colour) == "rgb(0, 0, 0)"
    assert page.locator("h1").evaluate(colour) == "rgb(31, 35, 40)"
    visitor.close()
