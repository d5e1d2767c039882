"""How the page of a build opens a long log, in Chromium.

    python bench/page_log.py [--lines 1000,10000,100000,1000000]

A finished build of N lines of 78 bytes on a service of its own with a fake cloud. `shown`: from the
request for the page to its last line in view. `block`: the longest time that the tab answered
nothing, by a heartbeat of 10 ms from the first script on, until five seconds after that. Then each
thing that a reader does: the time until it is seen, and the longest block meanwhile. `task`: CPU of
the longest of the tab's own tasks then, by Chromium's trace: on a busy machine a block is long
because others run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.browser import chromium
from tests.support.http_service import Service, only, service

BEAT = """
window.beat = {last: performance.now(), longest: 0};
setInterval(() => {
  const now = performance.now();
  beat.longest = Math.max(beat.longest, now - beat.last);
  beat.last = now;
}, 10);
"""
PATIENCE = 60.0  # seconds for one thing that a reader does
COLUMNS = (
    "shown",
    "block",
    "heap",
    "scroll up",
    "link to 500",
    "search",
    "next",
    "block then",
    "task",
)


def finished(http: Service, lines: int) -> str:
    body = {"name": f"log-{lines}", "steps": [f"many {lines} 77"]}
    build: str = only(http.client().post("/api/v1/builds", json=body))["id"]
    http.runner.wait(build, timeout=600)
    return build


def until(page: Page, script: str, arg: object = None) -> None:
    """Wait until a script is true: the page's own policy lets no other way in."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(script, arg):
        if time.monotonic() > end:
            raise TimeoutError(f"{script} {arg}: {page.locator('main').inner_text()[:2000]}")
        time.sleep(0.02)


def in_view(page: Page, line: int) -> None:
    until(
        page,
        """n => { const row = document.getElementById(`L${n}`)?.getBoundingClientRect();
        const box = document.getElementById("log")?.getBoundingClientRect();
        return row && row.bottom > box.top && row.top < box.bottom + 1; }""",
        line,
    )


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def longest_task(trace: bytes) -> float:
    """Seconds of CPU of the longest task of a tab."""
    events = json.loads(trace)["traceEvents"]
    tabs = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        event.get("tdur", 0)
        for event in events
        if event["ph"] == "X" and (event["pid"], event["tid"]) in tabs
    ]
    return max(tasks) / 1e6


def measure(page: Page, url: str, lines: int) -> dict[str, float]:
    def opened() -> None:
        page.goto(url, wait_until="commit")
        in_view(page, lines)

    found = {"shown": timed(opened)}
    page.wait_for_timeout(5000)
    found["block"] = page.evaluate("beat.longest") / 1000
    found["heap"] = page.evaluate("performance.memory.usedJSHeapSize / 1e6")
    page.evaluate("beat.longest = 0")
    assert page.context.browser is not None
    page.context.browser.start_tracing(page=page, categories=["toplevel"])
    first = max(1, lines - 800)

    def up() -> None:
        page.evaluate("document.getElementById('log').scrollTop = 200")
        page.wait_for_selector(f"#L{first}", state="attached")

    def search() -> None:
        page.fill("#search", "line 99")
        until(
            page,
            r"() => /^[\d,]+ of [\d,]+ lines$/.test(document.getElementById('found').textContent)",
        )

    def forward() -> None:
        page.press("#search", "Enter")
        until(page, "() => document.getElementById('found').textContent.startsWith('1 of')")
        page.wait_for_selector("#L99.here")

    found["scroll up"] = timed(up)
    found["link to 500"] = timed(
        lambda: (page.evaluate("location.hash = '#L500'"), in_view(page, 500))
    )
    page.click("#log-end")
    in_view(page, lines)
    found["search"] = timed(search)
    found["next"] = timed(forward)
    found["block then"] = page.evaluate("beat.longest") / 1000
    found["task"] = longest_task(page.context.browser.stop_tracing())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", default="1000,10000,20000,40000,100000,1000000")
    counts = [int(word) for word in parser.parse_args().lines.split(",")]
    table = Table("lines", *COLUMNS)
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.environ["XDG_DATA_HOME"] = f"{name}/data"
        with service(Path(name)) as http, chromium(Path(name)) as browser:
            http.runner._host.ensure("fake")
            for lines in counts:
                build = finished(http, lines)
                context = browser.new_context(viewport={"width": 1280, "height": 800})
                context.add_init_script(BEAT)
                page = context.new_page()
                page.goto(f"{http.url}/login")
                page.fill("input[name=token]", http.token())
                page.click("button")
                page.wait_for_url(f"{http.url}/")
                rows[lines] = measure(page, f"{http.url}/builds/{build}", lines)
                units = {"heap": "MB"}
                cells = [f"{rows[lines][c]:.2f} {units.get(c, 's')}" for c in COLUMNS]
                table.add_row(f"{lines:,}", *cells)
                context.close()
    Console(width=140).print(table)
    print(json.dumps({"load": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
