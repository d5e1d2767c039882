"""The page of one build, in a real browser: it follows the build, under its reader's hands."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.support.browser import Visitor
from tests.support.http_service import Service, only
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http
from tests.support.page_fixtures import submit
from tests.support.page_fixtures import visitor as visitor
from tests.support.scripted_app import wait_until

API = "/api/v1"
SOON = 20_000  # milliseconds


def test_a_page_follows_its_build_to_the_end(
    http: Service, visitor: Visitor, tmp_path: Path
) -> None:
    page, go = visitor.page, tmp_path / "go"
    page.clock.install()
    http.app.ledger.pause(True, 1.0)
    build = submit(http, f"say one\nuntil {go}", "say two", name="nightly")
    page.goto(f"{http.url}/builds/{build}")
    page.evaluate("window.same = true")
    expect(page.locator("h1")).to_contain_text("queued")
    expect(page.locator("#notices")).to_contain_text("It waits")
    expect(page.locator("#paused")).to_contain_text("Launching is stopped")
    http.app.ledger.pause(False, 1.0)
    expect(page.locator("h1")).to_contain_text("running", timeout=SOON)
    expect(page.locator("#paused")).to_be_empty(timeout=SOON)
    expect(page.locator("#notices")).to_be_empty()
    expect(page.locator("#steps li").first.locator(".mark")).to_have_class("mark running")
    expect(page.locator("#phases .grows")).to_have_count(1)
    expect(page.locator("#about")).to_contain_text("VM ends")
    expect(page.locator("#vms tbody tr")).to_have_count(1)
    expect(page.locator("#L1")).to_contain_text("one")
    go.touch()
    expect(page.locator("h1")).to_contain_text("success", timeout=SOON)
    expect(page.locator("#steps .mark.success")).to_have_count(2)
    expect(page.locator("#events")).to_contain_text("Step 2 “say two” ended with exit code 0")
    expect(page.locator("#build:not([hx-get])")).to_be_visible(timeout=SOON)
    expect(page.locator("#vms")).to_contain_text("gone", use_inner_text=False)
    assert page.title().startswith("✓ nightly")
    assert page.evaluate("window.same"), "without a reload"
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    page.clock.fast_forward(60_000)
    page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    assert calls == [], "what is over is not asked for"


def test_news_leave_the_readers_hands_alone(
    http: Service, visitor: Visitor, tmp_path: Path
) -> None:
    page, go = visitor.page, tmp_path / "go"
    build = submit(http, f"say one\nuntil {go}", "say two")
    page.goto(f"{http.url}/builds/{build}")
    expect(page.locator("#L1")).to_be_visible(timeout=SOON)
    page.locator("#events summary").click()
    page.locator("#steps a").nth(1).focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.meta code'))")
    page.evaluate("scrollTo(0, 120)")
    before = page.evaluate("scrollY")
    go.touch()
    expect(page.locator("h1")).to_contain_text("success", timeout=SOON)
    assert page.evaluate("document.activeElement.textContent") == "say two"
    assert page.evaluate("getSelection().toString()") == build
    assert page.evaluate("scrollY") == before
    assert page.locator("#events").get_attribute("open") is not None


def test_a_failed_build_begins_with_what_failed(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    lines = "\n".join(f"say line {n}" for n in range(40))
    build = submit(http, "say one", f"{lines}\nhex 1b5b33316d6572726f721b5b306d0a\nexit 2", "say x")
    http.ended(build)
    page.goto(f"{http.url}/builds/{build}")
    failed = page.locator(".failed")
    expect(failed.locator("h2")).to_contain_text("ended with exit code 2")
    shown = failed.locator("pre").inner_text().splitlines()
    assert (len(shown), shown[0], shown[-1]) == (15, "line 26", "error")
    marks = page.locator("#steps .mark .unseen").all_text_contents()
    assert marks == ["success", "failure", "skipped"]
    failed.get_by_role("link").click()
    expect(page.locator("#log h3 button:focus")).to_contain_text("exit 2")
    expect(page.locator("#L42")).to_be_visible()


def test_the_command_can_be_copied(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    steps = ["say it's one", "say $two"]
    build = submit(http, *steps, name="nightly", labels={"team": "a"}, env={"A": "b c"})
    page.goto(f"{http.url}/builds/{build}")
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["vmrunner", "run"]
    assert [words[n + 1] for n, word in enumerate(words) if word == "--step"] == steps
    assert "A=b c" in words
    assert "team=a" in words


def test_a_cancel_is_seen_without_a_reload(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = submit(http, "say one\nsleep 600")
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "running")
    page.goto(f"{http.url}/builds/{build}")
    page.evaluate("window.same = true")
    visitor.press("Cancel")
    expect(page.locator("h1 .pill.cancelled")).to_be_visible(timeout=SOON)
    assert page.evaluate("window.same")
    expect(page.locator(".failed.quiet")).to_contain_text("ran when the build was cancelled")
    expect(page.locator("#log h3")).to_contain_text("cut short", timeout=SOON)
    page.click("text=Run again")
    page.wait_for_url(re.compile(f"/builds/(?!{build})b-"))


def test_an_empty_log_says_so(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = submit(http, "exit 0")
    http.ended(build)
    page.goto(f"{http.url}/builds/{build}")
    expect(page.locator("#lines")).to_have_text("0 lines: nothing was written")
    expect(page.locator("#found-next")).to_be_visible()


JUNIT = """<testsuite><testcase classname="tests.test_a" name="test_good" time="0.1"/><testcase
 classname="tests.test_a" name="test_&lt;b&gt;bad" time="2.5"><failure message="1 is not 2">the
 traceback &lt;script&gt;alert(1)&lt;/script&gt;</failure></testcase></testsuite>""".replace(
    "\n", ""
)


def test_failed_tests_are_shown(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    rules = [{"path": "out/*", "always": True}]
    build = submit(http, f"artifact out/junit.xml {JUNIT}\nexit 1", artifacts=rules)
    http.ended(build)
    page.goto(f"{http.url}/builds/{build}")
    expect(page.locator("#tests h2")).to_contain_text("1 of 2 failed")
    failed = page.locator("#tests details")
    expect(failed.locator("summary")).to_contain_text("test_<b>bad")
    expect(failed.locator("summary")).to_contain_text("1 is not 2")
    expect(failed.locator(".took")).to_have_text("2.5s")
    failed.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(failed.locator("pre")).to_contain_text("<script>alert(1)</script>")
    tests = only(http.client().get(f"{API}/builds/{build}/tests"))
    assert (tests["total"], tests["failed"], tests["failures"][0]["name"]) == (2, 1, "test_<b>bad")
    other = http.tenant(team="x")
    assert other.get(f"{API}/builds/{build}/tests").status_code == 404


def test_artifacts_are_looked_at_and_come_as_one_zip(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    text = "artifact out/a.txt <b>bold</b>\nartifact out/b/c.txt two"
    build = submit(http, text, name="nightly", artifacts=["out/**"])
    http.ended(build)
    page.goto(f"{http.url}/builds/{build}")
    page.get_by_role("link", name="View out/a.txt").click()
    expect(page.locator("pre.artifact")).to_have_text("<b>bold</b>")
    page.go_back()
    with page.expect_download() as download:
        page.click("text=All as a zip")
    assert download.value.suggested_filename == f"nightly-{build}.zip"
    with zipfile.ZipFile(download.value.path()) as found:
        assert found.testzip() is None
        assert found.namelist() == ["out/a.txt", "out/b/c.txt"]
        assert found.read("out/b/c.txt") == b"two"


def test_an_artifact_that_is_no_text_is_not_shown(http: Service, tmp_path: Path) -> None:
    text = "artifact out/a.bin x\nartifact out/b.html <script>"
    build = submit(http, text, artifacts=["out/*"])
    http.ended(build)
    (file,) = tmp_path.rglob("a.bin")
    file.write_bytes(b"\0x")
    client = http.client()
    answer = client.get(f"/builds/{build}/artifacts/out/a.bin")
    assert "It is no text" in answer.text
    shown = client.get(f"/builds/{build}/artifacts/out/b.html")
    assert "&lt;script&gt;" in shown.text
    assert shown.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in shown.headers["content-security-policy"]
    assert client.get(f"/builds/{build}/artifacts/../../etc/passwd").status_code == 404
    assert http.tenant(team="x").get(f"/builds/{build}/artifacts/out/b.html").status_code == 404


def test_builds_of_a_name_are_plotted(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    builds = []
    for code in (0, 1, 0):
        builds.append(submit(http, f"exit {code}", name="nightly"))
        http.ended(builds[-1])
    submit(http, "exit 0", name="other")
    page.goto(f"{http.url}/builds/{builds[1]}")
    expect(page.locator("#before rect")).to_have_count(2)
    page.goto(f"{http.url}/builds/{builds[-1]}")
    bars = page.locator("#before rect")
    names = [bars.nth(n).get_attribute("class") for n in range(3)]
    assert names == ["success", "failure", "success"]
    expect(page.locator("#before p")).to_contain_text("2 of 3 succeeded")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_a_builds_page(http: Service, browser: Browser, scheme: str) -> None:
    rules = [{"path": "out/*", "always": True}]
    failed = submit(
        http, "say one", f"artifact out/junit.xml {JUNIT}\nhex 1b5b33316d650a\nexit 1", "say x",
        artifacts=rules, name="nightly", labels={"team": "a"},
    )  # fmt: skip
    http.ended(failed)
    http.ended(submit(http, "exit 0", name="nightly"))
    running = submit(http, f"many 1200\nhex {'41' * 6000}0a\nsleep 600")
    wait_until(lambda: http.app.ledger.builds.get(running).state.value == "running")
    visitor = Visitor(browser, http.url, http.token(), color_scheme=scheme)
    page, wrong = visitor.page, {}
    for path in (failed, running, f"{failed}/artifacts/out/junit.xml"):
        page.goto(f"{http.url}/builds/{path}")
        if "/" not in path:
            page.locator("#log[data-ready]").wait_for()
            page.locator("details").evaluate_all("all => all.forEach(e => { e.open = true; })")
            page.fill("#search", "1")
            expect(page.locator("#found")).to_contain_text("line", timeout=SOON)
        found = Axe().run(page).response["violations"]
        wrong[path] = [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
    assert {path: found for path, found in wrong.items() if found} == {}
    visitor.close()
