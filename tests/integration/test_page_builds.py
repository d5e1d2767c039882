"""The list of builds in a browser: its filter, its pages, what it says of none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import Visitor
from tests.support.http_service import TENANT, Service, only, service
from tests.support.page_fixtures import browser as browser
from vmrunner.server.routes import build_page

API = "/api/v1"
PAGE = {"Accept": "text/html"}


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as found:
        yield found


def submit(http: Service, name: str, **more: Any) -> str:
    body = {"steps": ["say x"], "name": name, **more}
    build: str = only(http.client().post(f"{API}/builds", json=body))["id"]
    return build


def listed(http: Service, query: str = "", token: str | None = None) -> list[str]:
    """The names of the builds of a page, as they stand there."""
    client = http.client(token)
    text = client.get(f"/?{query}", headers=PAGE).text
    return re.findall(r'<a href="/builds/[^"]+">([^<]+)</a>', text)


def test_each_word_of_the_filter_picks_its_builds(http: Service) -> None:
    http.runner._host.ensure("fake")
    ada, _ = http.app.ledger.tokens.create("ada", TENANT, by="me", now=0.0)
    http.ended(submit(http, "well", labels={"team": "a"}))
    body = {"steps": ["exit 2"], "name": "ill"}
    http.ended(only(http.client(ada).post(f"{API}/builds", json=body))["id"])
    assert listed(http) == ["ill", "well"]
    for query, names in (
        ("result=failure&result=error", ["ill"]),
        ("result=success", ["well"]),
        ("state=finished&actor=ada", ["ill"]),
        ("label=team%3Da", ["well"]),
        ("name=w*", ["well"]),
        ("provider=fake&since=24h", ["ill", "well"]),
        ("provider=&since=&name=", ["ill", "well"]),
        ("until=2020-01-01T00:00:00Z", []),
        ("state=active", []),
        ("state=all", ["ill", "well"]),
    ):
        assert listed(http, query) == names, query


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("label=core", "has no name and value"),
        ("state=helt", "did you mean &#39;held&#39;?"),
        ("result=bad", "no result"),
        ("since=yesterday", "since"),
        ("name=*x", "has a * that is not at its end"),
        ("name=%3Cscript%3E*x", "&lt;script&gt;"),
    ],
)
def test_a_mistyped_filter_keeps_the_page(http: Service, query: str, words: str) -> None:
    answer = http.client().get(f"/?{query}", headers=PAGE)
    assert answer.status_code == 422
    assert words in answer.text
    assert '<form class="filter"' in answer.text
    assert "hx-get" not in answer.text, "there is nothing to ask for again"


def test_one_pages_through_the_list_both_ways(
    http: Service, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_page, "_PAGE", 3)
    for number in range(8):
        submit(http, f"n{number}", labels={"team": "a"})
    visitor = Visitor(browser, http.url, http.token())
    page, names = visitor.page, visitor.page.locator("tbody .what a")
    newer = page.get_by_role("link", name="Newer")
    older = page.get_by_role("link", name="Older")
    page.goto(f"{http.url}/?label=team%3Da")
    expect(names).to_have_text(["n7", "n6", "n5"])
    expect(newer).to_have_count(0)
    older.click()
    expect(names).to_have_text(["n4", "n3", "n2"])
    older.click()
    expect(names).to_have_text(["n1", "n0"])
    expect(older).to_have_count(0)
    newer.click()
    expect(names).to_have_text(["n4", "n3", "n2"])
    newer.click()
    expect(names).to_have_text(["n7", "n6", "n5"])
    expect(newer).to_have_count(0)
    older.click()
    expect(names).to_have_text(["n4", "n3", "n2"])
    visitor.close()


def test_links_above_the_list_say_how_many_wait(http: Service, browser: Browser) -> None:
    submit(http, "one")
    submit(http, "two")
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    queued = page.get_by_role("link", name="queued 2")
    queued.click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator('[aria-label="States"] [aria-current]')).to_have_text("queued 2")
    page.get_by_role("link", name="failed").click()
    expect(page.locator("#builds")).to_contain_text("No build here is like that")
    page.get_by_role("link", name="Show all").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    visitor.close()


def test_a_number_above_the_list_is_of_the_whole_list(http: Service) -> None:
    submit(http, "one")
    client = http.client()
    assert "queued <b>1</b>" in client.get("/", headers=PAGE).text
    assert "queued <b>1</b>" in client.get("/?result=failure", headers=PAGE).text
    for query in ("name=other", "actor=ada", "label=a%3Db", "since=1h", "provider=x"):
        text = client.get(f"/?{query}", headers=PAGE).text
        assert ">queued</a>" in text, query
        assert "<b>1</b>" not in text, query


def test_a_word_is_taken_out_of_the_filter(http: Service, browser: Browser) -> None:
    submit(http, "one")
    visitor = Visitor(browser, http.url, http.token())
    page = visitor.page
    page.goto(f"{http.url}/?name=other&state=queued")
    page.get_by_role("link", name="name: other").click()
    page.wait_for_url(f"{http.url}/?state=queued")
    expect(page.locator("tbody tr")).to_have_count(1)
    visitor.close()


def test_an_empty_list_says_how_to_begin(http: Service) -> None:
    text = http.client().get("/", headers=PAGE).text
    assert f"export VMRUNNER_SERVER={http.url}" in text
    assert "vmrunner run --source . -- make test" in text


def test_a_tenant_counts_its_own_alone(http: Service) -> None:
    submit(http, "theirs", labels={"team": "b"})
    own = http.token(TENANT, labels={"team": "a"})
    text = http.client(own).get("/", headers=PAGE).text
    assert "queued <b>0</b>" in text
    assert listed(http, "actor=t", own) == []
    assert listed(http, "newer=b-0", own) == []


def test_a_builds_name_and_labels_are_whole(http: Service, browser: Browser) -> None:
    labels = {"branch": "main", "team": "core"}
    body = {"name": "nightly", "labels": labels, "steps": ["exit 1"]}
    http.ended(only(http.client().post(f"{API}/builds", json=body))["id"])
    visitor = Visitor(browser, http.url, http.token(), viewport={"width": 1280, "height": 800})
    cut = "each => each.filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth).length"
    assert visitor.page.locator(".builds .what :is(a, .chip)").evaluate_all(cut) == 0
    visitor.close()


@pytest.mark.parametrize("width", [390, 900, 1280])
def test_a_list_tells_who_submitted_once(http: Service, browser: Browser, width: int) -> None:
    only(http.client().post(f"{API}/builds", json={"steps": ["true"]}))
    visitor = Visitor(browser, http.url, http.token(), viewport={"width": width, "height": 800})
    row = visitor.page.locator(".builds tbody tr")
    expect(row.get_by_text("t", exact=True).filter(visible=True)).to_have_count(1)
    visitor.close()


def test_a_hostile_build_is_text(http: Service, browser: Browser) -> None:
    body = {"steps": [f"say <script>document.title='taken'</script>{'x' * 20_000}"]}
    only(http.client().post(f"{API}/builds", json=body))
    visitor = Visitor(browser, http.url, http.token(), viewport={"width": 390, "height": 800})
    expect(visitor.page.locator("tbody .command")).to_contain_text("<script>")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visitor.page.title() == "Builds · vmrunner"
    visitor.close()
