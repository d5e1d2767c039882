"""The overview in a browser: what runs, what waits, what failed, what it costs; to a tenant its own
alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import Visitor, chromium
from tests.support.http_service import TENANT, Service, only, service
from tests.support.scripted_app import wait_until
from vmrunner.model import Cost, TokenScope
from vmrunner.server.routes import overview_page

API = "/api/v1"
PAGE = {"Accept": "text/html"}
BUDGETS = [{"match": {}, "usd_per_day": 20}]


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path, budgets=BUDGETS) as found:
        found.runner._host.ensure("fake")
        yield found


def submit(http: Service, name: str, step: str, **more: Any) -> str:
    body = {"steps": [step], "name": name, **more}
    build: str = only(http.client().post(f"{API}/builds", json=body))["id"]
    return build


def part(text: str, heading: str) -> str:
    """A section of the page."""
    return text.partition(f">{heading}</h2>")[2].partition("</section>")[0]


def test_the_overview_tells_each_build_where_it_is(http: Service) -> None:
    http.ended(submit(http, "well", "say x", labels={"team": "a"}))
    http.ended(submit(http, "ill", "exit 2", labels={"team": "a"}))
    runs = submit(http, "goes-on", "sleep 600", labels={"team": "b"})
    wait_until(lambda: http.app.ledger.builds.get(runs).state.value == "running")
    http.app.ledger.pause(True, 1.0)
    submit(http, "stays", "say x", labels={"team": "b"})
    text = http.client().get("/overview", headers=PAGE).text
    assert re.findall(r"<b>([^<]+)</b>", text)[:3] == ["1", "1", "1"]
    assert "of 2 failed in 24 hours" in text
    assert "goes-on" in part(text, "Running")
    assert "launching is stopped" in part(text, "Waiting, and why")
    assert "ill" in part(text, "Failed last")
    assert "well" not in part(text, "Failed last")
    assert "2 builds ended in the last 24 hours, 1 failed" in text
    assert "of $20.00" in part(text, "Budgets")
    assert "1 at fake" in text
    theirs = http.client(http.token(TENANT, labels={"team": "a"}))
    own = theirs.get("/overview", headers=PAGE).text
    assert re.findall(r"<b>([^<]+)</b>", own)[:3] == ["0", "0", "1"]
    for hidden in ("goes-on", "stays", "Budgets", "Nodes", "of $20.00", "1 at fake"):
        assert hidden not in own, hidden
    assert "ill" in part(own, "Failed last")
    http.client().post(f"{API}/builds/{runs}/cancel")


def test_a_vm_that_is_kept_is_told_in_lists(http: Service) -> None:
    """It costs money on, whatever became of its build."""
    build = submit(http, "ill", "exit 2", keep_on_failure="20m")
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "held")
    pill = '<span class="pill held">held</span>'
    overview = http.client().get("/overview", headers=PAGE).text
    assert pill in part(overview, "Running")
    assert pill in http.client().get("/", headers=PAGE).text
    http.client().post(f"{API}/builds/{build}/cancel")
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "finished")
    assert pill not in http.client().get("/", headers=PAGE).text


def test_figures_follow_what_stands_beside_them(http: Service) -> None:
    client = http.client()

    def text() -> str:
        return client.get("/overview", headers=PAGE).text

    assert "of 0 failed" in text()
    for number, step in enumerate(("exit 2", "say x"), 1):
        http.ended(submit(http, f"n{number}", step))
        wait_until(lambda count=number: f"<b>1</b> of {count} failed" in text())
    assert "2 builds ended in the last 24 hours, 1 failed" in text()


def test_who_cancelled_is_named_and_nothing_went_well(http: Service) -> None:
    http.app.ledger.pause(True, 1.0)
    build = submit(http, "stays", "say x")
    http.client().post(f"{API}/builds/{build}/cancel")
    http.ended(build)
    text = http.client().get("/overview", headers=PAGE).text
    assert "0 well, 0 failed, 1 cancelled" in text
    assert 'rect class="cancelled"' in text
    text = http.client().get(f"/builds/{build}", headers=PAGE).text
    assert "Its end was asked for by t: user" in text, "a token's name, not its id"


def test_a_reaper_that_never_passed_gets_no_tick(http: Service) -> None:
    line = http.client().get("/overview", headers=PAGE).text.partition("has not passed yet")[0]
    assert "mark queued" in line.rpartition("<li>")[2]


def test_what_has_no_price_hides_no_price() -> None:
    assert overview_page._today(Cost()) == ("$0", "today")
    words = "today, and what has no known price"
    assert overview_page._today(Cost(known=1.5, unpriced=1)) == ("$1.50", words)
    assert overview_page._today(Cost(unpriced=1))[0] == "unknown"
    assert overview_page._today(Cost(known=0.0123, unpriced=1))[0] == "$0.0123"


def test_a_mark_stands_beside_its_long_name_on_phones(
    http: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    build = submit(http, "a-long-name-of-a-build-of-everything-that-we-have", "exit 2")
    http.ended(build)
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        visitor = Visitor(browser, http.url, http.token(), viewport={"width": 390, "height": 844})
        page = visitor.page
        for path, place in (("/overview", "#failed-title + ul li"), (f"/builds/{build}", "h1")):
            page.goto(http.url + path)
            mark = page.locator(f"{place} > .mark").bounding_box()
            name = page.locator(f"{place} > :nth-child(2)").bounding_box()
            assert mark
            assert name
            assert name["x"] > mark["x"], path
            assert mark["y"] < name["y"] + 10, path
            current = page.locator("nav[aria-label=Pages] [aria-current]")
            words = ("Overview", "page") if path == "/overview" else ("Builds", "true")
            assert (current.inner_text(), current.get_attribute("aria-current")) == words
        visitor.close()


def test_a_reader_of_all_may_change_nothing(http: Service) -> None:
    reader = http.client(http.token(frozenset({TokenScope.READ})))
    text = reader.get("/overview", headers=PAGE).text
    assert "Nodes" in text
    assert "data-post" not in text


def test_the_overview_follows_what_happens(
    http: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        visitor = Visitor(browser, http.url, http.token(), viewport={"width": 390, "height": 844})
        page = visitor.page
        page.goto(f"{http.url}/overview")
        expect(page.locator("#overview")).to_contain_text("vmrunner run --source . -- make test")
        build = submit(http, "nightly", "sleep 600")
        link = page.locator("#running-title + ul").get_by_role("link", name="nightly")
        expect(link).to_be_visible(timeout=20_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        link.focus()
        submit(http, "weekly", "sleep 600")
        expect(page.locator("#running-title + ul")).to_contain_text("weekly", timeout=20_000)
        assert page.evaluate("document.activeElement.textContent") == "nightly"
        page.keyboard.press("Enter")
        page.wait_for_url(f"{http.url}/builds/{build}")
        visitor.close()
