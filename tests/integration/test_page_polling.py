"""Pages that ask again what changed: nothing moves under the reader's hands."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Visitor
from tests.support.http_service import Service, only
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http

API = "/api/v1"
POLL = {"HX-Request": "true", "Accept": "text/html"}


def submit(http: Service, name: str) -> str:
    body = {"steps": ["say x"], "name": name}
    build: str = only(http.client().post(f"{API}/builds", json=body))["id"]
    http.ended(build)
    return build


def test_a_page_in_which_time_alone_went_on_stays(http: Service) -> None:
    client = http.client()
    submit(http, "nightly")
    http.clock.append(2_000_000_000.0)
    first = client.get("/", headers=POLL)
    http.clock[0] += 3.0
    again = {**POLL, "If-None-Match": first.headers["etag"]}
    answer = client.get("/", headers=again)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    submit(http, "newer")
    assert client.get("/", headers=again).status_code == 200


@pytest.mark.parametrize("path", ["/", "/vms", "/pools", "/nodes", "/caches", "/costs"])
def test_a_poll_without_a_login_gets_no_page(http: Service, path: str) -> None:
    """A login page in the place of the rows would be taken for an empty list."""
    answer = http.client("").get(path, headers=POLL)
    assert answer.status_code == 401
    assert "html" not in answer.headers["content-type"]
    assert http.client("").get(path, headers={"Accept": "text/html"}).status_code == 303


def test_selected_text_and_scroll_stay_where_they_are(http: Service, browser: Browser) -> None:
    body = {"steps": ["say x"]}
    for number in range(30):
        only(http.client().post(f"{API}/builds", json=body | {"name": f"nightly-{number}"}))
    visitor = Visitor(browser, http.url, http.token(), viewport={"width": 900, "height": 400})
    page = visitor.page
    row = page.locator("tbody tr").nth(20).locator("td").first
    row.scroll_into_view_if_needed()
    row.select_text()
    selected = "getSelection().toString()"
    place = "getSelection().getRangeAt(0).getBoundingClientRect().top"
    before, height = page.evaluate(selected), page.evaluate(place)
    submit(http, "newer")
    page.get_by_text("newer").wait_for()
    assert "nightly" in before
    assert page.evaluate(selected) == before
    assert page.evaluate("scrollY") > 0
    assert abs(page.evaluate(place) - height) < 2, "it stands where it stood on the screen"
    visitor.close()
