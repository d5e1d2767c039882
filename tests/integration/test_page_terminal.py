"""A terminal in the page of a build, in a real browser, to a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Visitor
from tests.support.entered import Entered, entered
from tests.support.http_service import ALL, TENANT
from tests.support.page_fixtures import browser as browser
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Sshd

pytestmark = pytest.mark.timeout(120)
SOON = 20_000  # milliseconds


@pytest.fixture
def world(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        yield found


@pytest.fixture
def visitor(browser: Browser, world: Entered) -> Iterator[Visitor]:
    found = Visitor(browser, world.http.url, world.http.token(ALL))
    yield found
    found.close()


def open_shell(page: Page, world: Entered) -> None:
    page.goto(f"{world.http.url}/builds/{world.build}")
    page.click("#terminal")
    expect(page.locator(".terminal-notice")).to_be_empty(timeout=SOON)
    page.locator(".xterm-helper-textarea").wait_for()


def shown(page: Page) -> str:
    text: str = page.locator(".xterm-rows").inner_text().replace("\xa0", " ")
    return text


def shows(page: Page, text: str) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(text, timeout=SOON)


def test_a_shell_is_typed_in_and_ends(world: Entered, visitor: Visitor) -> None:
    page = visitor.page
    open_shell(page, world)
    page.keyboard.type("echo $((40 + 2)) is it\n")
    shows(page, "42 is it")
    page.keyboard.type("printf '\\033[38;2;1;2;3mtrue\\033[0m colour\\n'\n")
    shows(page, "true colour")
    page.keyboard.type("exit 7\n")
    expect(page.locator(".terminal-notice")).to_have_text("The shell has ended (7).", timeout=SOON)
    page.get_by_role("button", name="Connect again").click()
    expect(page.locator(".terminal-notice")).to_be_empty(timeout=SOON)
    page.keyboard.type("echo again $((1 + 1))\n")
    shows(page, "again 2")


def test_it_has_the_size_of_its_place(world: Entered, visitor: Visitor) -> None:
    page = visitor.page
    open_shell(page, world)
    page.keyboard.type("stty size\n")
    before = page.evaluate("document.querySelectorAll('.xterm-rows > div').length")
    shows(page, f"{before} ")
    page.set_viewport_size({"width": 900, "height": 500})
    expect(page.locator(".xterm-rows > div")).not_to_have_count(before)
    page.keyboard.type("clear; stty size\n")
    rows = page.evaluate("document.querySelectorAll('.xterm-rows > div').length")
    shows(page, f"{rows} ")


def test_one_key_leaves_it(world: Entered, visitor: Visitor) -> None:
    page = visitor.page
    open_shell(page, world)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "xterm-helper-textarea"
    page.keyboard.press("F6")
    assert page.evaluate("document.activeElement.id") == "terminal-close"
    page.keyboard.press("Enter")
    expect(page.locator("#terminal-part")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "terminal"


def test_polls_leave_it_alone(world: Entered, visitor: Visitor) -> None:
    page = visitor.page
    open_shell(page, world)
    page.keyboard.type("echo held$((1 + 1))\n")
    shows(page, "held2")
    world.hold()
    expect(page.locator("h1 .pill.held")).to_be_visible(timeout=SOON)
    page.keyboard.type("echo still$((1 + 1))\n")
    shows(page, "still2")


def test_without_the_scope_there_is_none(world: Entered, browser: Browser) -> None:
    reader = Visitor(browser, world.http.url, world.http.token(TENANT))
    reader.page.goto(f"{world.http.url}/builds/{world.build}")
    expect(reader.page.locator("#log[data-ready]")).to_be_attached()
    assert reader.page.locator("#terminal, #terminal-part").count() == 0
    reader.close()


def test_a_lost_connection_is_told(world: Entered, browser: Browser) -> None:
    page = Visitor(browser, world.http.url, world.http.token(ALL)).page
    open_shell(page, world)
    world.http.listener.close()
    notice = page.locator(".terminal-notice")
    expect(notice).to_contain_text("server stops", timeout=SOON)
    page.get_by_role("button", name="Connect again").click()
    expect(notice).to_contain_text("could not be opened", timeout=SOON)
    page.context.close()
