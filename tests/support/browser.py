"""Debian's Chromium, without a window, and who visits a service in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
#: It asks nobody but the page's own server.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser that knows nothing yet."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*FLAGS],
            env={"HOME": str(profile), "PATH": "/usr/bin:/bin"},
        )
        try:
            yield browser
        finally:
            browser.close()


def _netloc(url: str) -> str:
    return httpx2.URL(url).netloc.decode()


class Visitor:
    """A page in which somebody is logged in. What went wrong in it, and whom it asked."""

    def __init__(self, browser: Browser, url: str, token: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("request", lambda request: self.hosts.add(_netloc(request.url)))
        self.page.goto(f"{url}/")
        self.page.fill("input[name=token]", token)
        self.page.click("button")
        self.page.wait_for_url(f"{url}/")
        self._server = _netloc(url)

    def press(self, name: str) -> None:
        """Press a button that asks first, and mean it."""
        self.page.get_by_role("button", name=name).first.click()
        self.page.get_by_role("dialog").get_by_role("button", name=name).click()

    def _note(self, kind: str, text: str) -> None:
        if kind == "error":
            self.wrong.append(text)

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []
        assert self.hosts <= {self._server, ""}, "no request leaves the server"
