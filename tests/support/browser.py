"""Debian's Chromium, without a window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

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
