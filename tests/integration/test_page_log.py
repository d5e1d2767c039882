"""The log in a build's page, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import Visitor
from tests.support.http_service import Service, only
from tests.support.page_fixtures import browser as browser
from tests.support.page_fixtures import http as http
from tests.support.page_fixtures import visitor as visitor
from tests.support.scripted_app import wait_until
from vmrunner.server.listener import HttpListener

API = "/api/v1"
SOON = 20_000  # milliseconds
NO_STEPS = '{"items": [], "ended": false}'
TOP = "row.getBoundingClientRect().top - log.getBoundingClientRect().top"
REMEMBER = f"n => {{ window.row = document.getElementById(`L${{n}}`); return {TOP}; }}"
SELECT = "n => getSelection().selectAllChildren(document.querySelector(`#L${n} .text`))"


def submit(http: Service, *steps: str, **more: Any) -> str:
    answer = http.client().post(f"{API}/builds", json={"steps": list(steps), **more})
    name: str = only(answer)["id"]
    return name


def ended(http: Service, *steps: str, **more: Any) -> str:
    build = submit(http, *steps, **more)
    http.ended(build)
    return build


def opened(page: Page, http: Service, build: str, place: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{http.url}/builds/{build}{place}")
    page.locator("#log[data-ready]").wait_for()


def rows(page: Page) -> list[int]:
    """The numbers of the lines that are in the page."""
    script = "[...document.querySelectorAll('#log .block > div')].map(e => Number(e.id.slice(1)))"
    found: list[int] = page.evaluate(script)
    return found


def test_a_log_is_followed_and_linked_to(http: Service, visitor: Visitor, tmp_path: Path) -> None:
    page, go = visitor.page, tmp_path / "go"
    says = [f"say line {n}" for n in range(1, 40)]
    build = submit(http, "\n".join([*says, f"until {go}", "say the last", "exit 3"]))
    opened(page, http, build, "#L7")
    expect(page.locator("#L7.here")).to_contain_text("line 7")
    expect(page.locator("#L39")).to_contain_text("line 39")
    expect(page.locator("#lines")).to_contain_text("39 lines")
    go.touch()
    expect(page.locator("#L40")).to_contain_text("the last", timeout=SOON)
    expect(page.locator("h1")).to_contain_text("failure (3)", timeout=SOON)
    expect(page.locator("#log h3")).to_contain_text("exit 3")
    assert rows(page) == list(range(1, 41)), "each line once"
    expect(page.locator("#L7.here")).to_be_visible()


def outlines(page: Page, answers: Callable[[], str | None]) -> None:
    """Answer the page's questions for its steps with these; None: with what the server says."""

    def answer(route: Route) -> None:
        body = answers()
        if body is None:
            route.continue_()
        else:
            route.fulfill(body=body, content_type="application/json")

    page.route("**/outline", answer)


def remember(page: Page, line: int) -> float:
    """Select a line, once it is there, in sight. Where it is in the box, in pixels."""
    page.locator(f"#L{line}").scroll_into_view_if_needed(timeout=SOON)
    page.evaluate(SELECT, line)
    place: float = page.evaluate(REMEMBER, line)
    return place


def kept(page: Page, place: float, text: str) -> None:
    """The row that was remembered is the same element, where it was, and selected."""
    assert page.evaluate("[row.isConnected, getSelection().toString()]") == [True, text]
    assert page.evaluate(TOP) == pytest.approx(place, abs=2), "but for fractions of a pixel"


def test_a_reader_stays_where_the_first_step_is_known_late(
    http: Service, visitor: Visitor, tmp_path: Path
) -> None:
    """Lines of no step become those of the step, with whoever reads them."""
    page, go = visitor.page, tmp_path / "go"
    answers = iter([NO_STEPS])
    outlines(page, lambda: next(answers, None))
    build = submit(http, "\n".join([*(f"say line {n}" for n in range(1, 40)), f"until {go}"]))
    opened(page, http, build, "#L7")
    expect(page.locator("#L7.here")).to_contain_text("line 7", timeout=SOON)
    go.touch()
    expect(page.locator("h1")).to_contain_text("success", timeout=SOON)
    expect(page.locator("#log h3")).to_contain_text("say line 1", timeout=SOON)
    expect(page.locator("#L7.here")).to_be_visible()
    expect(page.locator("#L39")).to_contain_text("line 39")


def test_a_long_log_opens_at_its_end(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = ended(http, "many 20000")
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    opened(page, http, build)
    expect(page.locator("#L20000")).to_be_in_viewport()
    assert rows(page) == list(range(19_501, 20_001))
    assert sum("/logs" in url for url in calls) == 2, "its outline and one window"
    expect(page.locator("#lines")).to_have_text("20,000 lines")
    expect(page.locator(".earlier")).to_contain_text("19,500 earlier lines")


def test_earlier_lines_come_while_one_scrolls_up(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    opened(page, http, ended(http, "many 20000"))
    first = page.locator("#L19501")
    first.scroll_into_view_if_needed()
    expect(page.locator("#L19001")).to_be_attached()
    expect(first).to_be_in_viewport()
    assert rows(page) == list(range(rows(page)[0], 20_001))
    box = page.locator("#log")
    box.focus()

    def end_is_let_go() -> bool:
        page.keyboard.press("Home")
        return rows(page)[-1] < 20_000

    wait_until(end_is_let_go)
    found = rows(page)
    assert found == list(range(found[0], found[-1] + 1))
    assert len(found) <= 4_100, "the page does not grow"
    page.click("#log-end")
    expect(page.locator("#L20000")).to_be_in_viewport()


FROM_THE_END = "log.scrollHeight - log.clientHeight - log.scrollTop"
#: Press the button once so much of the way up is left (of a scroll that the browser animates).
PRESS_AT = """part => new Promise(pressed => {
  const way = (log.scrollHeight - log.clientHeight) * part;
  const button = document.getElementById("log-end");
  const look = () => log.scrollTop <= way ? pressed(button.click()) : requestAnimationFrame(look);
  look();
})"""
#: Wait until the box stood still for 40 frames: some 700 ms, and longer where frames take longer.
#: Chromium's scroll by a key is over after 150 ms.
AT_REST = """new Promise(rests => {
  let former = -1, still = 0;
  const look = () => {
    still = log.scrollTop === former ? still + 1 : 0;
    former = log.scrollTop;
    still === 40 ? rests(former) : requestAnimationFrame(look);
  };
  look();
})"""


def test_to_the_end_wins_over_a_running_scroll(http: Service, visitor: Visitor) -> None:
    """Chromium animates the key's scroll for some 150 ms; a press after it is the later word."""
    page = visitor.page
    opened(page, http, ended(http, "many 400"))
    box, end = page.locator("#log"), page.locator("#log-end")
    for part in (1, 0.99, 0.5):  # as it begins, just after, and amid it
        box.focus()
        page.keyboard.press("Home")
        page.evaluate(PRESS_AT, part)
        page.evaluate(AT_REST)
        assert page.evaluate(FROM_THE_END) <= 1, part
    expect(page.locator("#lines")).to_have_text("400 lines")
    box.focus()
    end.evaluate("button => button.click()")
    page.keyboard.press("Home")
    wait_until(lambda: page.evaluate("log.scrollTop") == 0)
    assert page.evaluate(AT_REST) == 0, "a key after it is the later word"


def test_a_line_far_away_is_linked_to(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = ended(http, "many 20000", "say after")
    opened(page, http, build, "#L500")
    expect(page.locator("#L500.here")).to_be_in_viewport()
    expect(page.locator("#L500")).to_contain_text("line 500 of many")
    page.locator("#L501 a").click()
    expect(page.locator("#L501.here")).to_be_visible()
    assert page.url.endswith("#L501")
    opened(page, http, build, "#L99999")
    expect(page.locator("#log-status")).to_have_text("There is no line 99,999: the log has 20,001.")


def test_all_of_a_log_is_searched(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    opened(page, http, ended(http, "many 20000"))
    found = page.locator("#found")
    page.fill("#search", "LINE 123")
    expect(found).to_have_text("111 of 111 lines", timeout=SOON)
    expect(page.locator("#L12399.here")).to_be_in_viewport()
    page.press("#search", "Enter")
    expect(page.locator("#L123.here")).to_be_in_viewport()
    expect(found).to_have_text("1 of 111 lines")
    page.click("#found-previous")
    expect(page.locator("#L12399.here")).to_be_in_viewport()
    assert page.evaluate("CSS.highlights.get('found').size") > 0
    page.fill("#search", "line 12")
    page.press("#search", "Enter")  # while it is looked for
    page.press("#search", "Enter")
    expect(found).to_contain_text("of 1,111 lines", timeout=SOON)
    page.fill("#search", "no such text")
    expect(found).to_have_text("not in 20,000 lines", timeout=SOON)
    page.fill("#search", "")
    expect(found).to_be_empty()


def test_steps_fold_and_the_failed_one_is_open(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    build = ended(http, "say one", "say two\nexit 4", "say never")
    opened(page, http, build)
    expect(page.locator("#log h3 button")).to_have_count(2)
    expect(page.locator("#L2")).to_be_visible()
    expect(page.locator("#L1")).to_have_count(0)
    first = page.locator("#log h3 button").first
    first.focus()
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#L1")).to_contain_text("one")
    page.keyboard.press("Enter")
    expect(page.locator("#L1")).to_have_count(0)
    page.click("#steps a >> nth=0")
    expect(page.locator("#L1")).to_be_in_viewport()


def test_a_hostile_log_is_text(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    lines = (
        "say <script>document.title='taken'</script><img src=x onerror=alert(1)>",
        "hex 1b5b33316d7265641b5b306d" + "1b5d303b7469746c6507" + "1b5b324a610a",
        f"hex {'41' * 1_000_000}",
    )
    opened(page, http, ended(http, "\n".join(lines)))
    expect(page.locator("#L1")).to_contain_text("<script>document.title='taken'</script>")
    expect(page.locator("#L2 .c1")).to_have_text("red")
    expect(page.locator("#L2 span.text")).to_contain_text("reda")
    assert page.locator("#L3 .text").evaluate("e => e.textContent.length") == 4096
    page.locator("#L3 button.cut").click()
    page.locator("#L3 button.cut").wait_for(state="detached")
    assert page.locator("#L3 .text").evaluate("e => e.textContent.length") == 1_000_000
    assert "vmrunner" in page.title()
    assert page.locator("#log script, #log img").count() == 0


def test_hostile_titles_are_text(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    bad = "<img src=x onerror=\"document.title='taken'\">"
    build = ended(http, f"say {bad}\nexit 1", labels={"x": "<b>"})
    opened(page, http, build)
    expect(page.locator("#log h3")).to_contain_text("<img src=x")
    expect(page.locator(".failed pre")).to_contain_text("<img src=x")
    assert page.locator("main img, main .chip b").count() == 0
    assert "taken" not in page.title()


def test_colours_of_a_hostile_line_are_few(http: Service, visitor: Visitor) -> None:
    """Of one style there is one piece, with each class once; of many there is a part."""
    page = visitor.page
    bold = "1b5b" + "3b".join(["31"] * 4000) + "6d"
    turns = "781b5b33316d781b5b33326d" * 1000  # x in red, x in green
    shiny = bold + "781b5b316d" * 2000
    build = ended(http, f"hex {shiny}0a\nhex {turns}0a\nsay end")
    opened(page, http, build)
    expect(page.locator("#L3")).to_contain_text("end")
    for line in (1, 2):
        page.locator(f"#L{line} button.cut").click()
        page.locator(f"#L{line} button.cut").wait_for(state="detached")
    count = "n => document.querySelectorAll(`#L${n} span.text span`).length"
    assert page.evaluate(count, 1) == 1
    assert page.evaluate(count, 2) <= 102
    names = "[...document.querySelectorAll('#log .text span')].map(e => e.className.length)"
    assert max(page.evaluate(names)) < 10
    assert page.locator("#L2 span.text").inner_text() == "x" * 2000, "no character is lost"


def test_the_log_is_one_tab_stop_a_step(http: Service, visitor: Visitor) -> None:
    page = visitor.page
    opened(page, http, ended(http, "many 300"))
    page.locator("#log").focus()
    stops = []
    for _ in range(10):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.closest('#log') !== null"))
    assert sum(stops) == 1, "its step's heading"


def test_a_lost_server_loses_no_line(http: Service, browser: Browser, tmp_path: Path) -> None:
    go, more = tmp_path / "go", tmp_path / "more"
    page = Visitor(browser, http.url, http.token()).page
    text = f"many 50\nuntil {go}\nmany 50\nuntil {more}\nsay the last"
    build = submit(http, text)
    opened(page, http, build)
    expect(page.locator("#L50")).to_be_visible(timeout=SOON)
    http.listener.close()
    expect(page.locator("#connection")).to_contain_text("No answer from the server", timeout=SOON)
    go.touch()
    http.listener = HttpListener(("127.0.0.1", http.listener.port), http.parts)
    expect(page.locator("#L100")).to_be_visible(timeout=SOON)
    expect(page.locator("#connection")).to_be_empty(timeout=SOON)
    more.touch()
    expect(page.locator("#L101")).to_contain_text("the last", timeout=SOON)
    expect(page.locator("h1")).to_contain_text("success", timeout=SOON)
    assert rows(page) == list(range(1, 102))


def test_a_lost_login_leads_back_to_the_line(
    http: Service, browser: Browser, tmp_path: Path
) -> None:
    page = Visitor(browser, http.url, http.token()).page
    build = submit(http, f"many 50\nuntil {tmp_path / 'go'}\nsay the last")
    opened(page, http, build, "#L7")
    expect(page.locator("#L7.here")).to_be_visible(timeout=SOON)
    for token in http.app.ledger.tokens.list():
        http.app.ledger.tokens.revoke(token.id, 1.0)
    expect(page.locator("#connection")).to_contain_text("Your login is over", timeout=SOON)
    expect(page.locator("#L7")).to_be_visible()
    page.locator("#connection a").click()
    page.fill("input[name=token]", http.token())
    page.click("button")
    page.wait_for_url(f"{http.url}/builds/{build}#L7")
    (tmp_path / "go").touch()
    expect(page.locator("#L51")).to_be_visible(timeout=SOON)


def test_new_lines_leave_a_selection_and_a_place(
    http: Service, visitor: Visitor, tmp_path: Path
) -> None:
    page, go = visitor.page, tmp_path / "go"
    build = submit(http, f"many 200\nuntil {go}\nmany 200\nsay the last")
    opened(page, http, build)
    expect(page.locator("#L200")).to_be_in_viewport(timeout=SOON)
    before = remember(page, 190)
    go.touch()
    expect(page.locator("#L401")).to_be_attached(timeout=SOON)
    kept(page, before, "line 190 of many")


@pytest.mark.parametrize("line", [50, 200])
def test_a_selection_survives_steps_that_are_known_late(
    http: Service, visitor: Visitor, tmp_path: Path, line: int
) -> None:
    """Its row goes to the part of its step, as it is."""
    page, go = visitor.page, tmp_path / "go"
    steps_seen: list[bool] = []
    outlines(page, lambda: None if steps_seen else NO_STEPS)
    build = submit(http, "many 100", f"many 100\nuntil {go}\nsay the last")
    opened(page, http, build)
    expect(page.locator("#L200")).to_be_in_viewport(timeout=SOON)
    before = remember(page, line)
    steps_seen.append(True)
    go.touch()
    expect(page.locator("#log h3 button")).to_have_count(2, timeout=SOON)
    expect(page.locator("#L201")).to_be_attached(timeout=SOON)
    kept(page, before, f"line {line if line <= 100 else line - 100} of many")
    assert rows(page) == list(range(1, 202)), "each line once"


def test_a_selection_survives_a_step_that_grew_into_another(
    http: Service, visitor: Visitor, tmp_path: Path
) -> None:
    """Lines came before it was known that a second step wrote them."""
    page, go, next_ = visitor.page, tmp_path / "go", tmp_path / "next"
    former: list[str] = []
    build = submit(http, f"many 100\nuntil {next_}", f"many 100\nuntil {go}\nsay the last")
    outline = http.client().get
    outlines(page, lambda: former[0] if former else None)
    opened(page, http, build)
    expect(page.locator("#log h3 button")).to_have_count(1, timeout=SOON)
    expect(page.locator("#L100")).to_be_in_viewport(timeout=SOON)
    former.append(outline(f"{API}/builds/{build}/logs/outline").text)
    next_.touch()
    before = remember(page, 150)
    former.clear()
    go.touch()
    expect(page.locator("#log h3 button")).to_have_count(2, timeout=SOON)
    expect(page.locator("#L201")).to_be_attached(timeout=SOON)
    kept(page, before, "line 50 of many")
    assert rows(page) == list(range(1, 202)), "each line once"


def test_a_search_keeps_to_the_tenants_own(http: Service) -> None:
    build = ended(http, "say secret", labels={"team": "b"})
    tenant = http.tenant(team="a")
    for route in ("search?text=secret", "lines", "outline"):
        assert tenant.get(f"{API}/builds/{build}/logs/{route}").status_code == 404, route
    assert http.client("").get(f"{API}/builds/{build}/logs/outline").status_code == 401


def test_few_searches_of_one_token_run_at_once(http: Service) -> None:
    build = ended(http, "many 10")
    client = http.client()
    slots = http.listener.app.state.search_slots
    for token in http.app.ledger.tokens.list():
        slots._busy[token.actor] = 2
    answer = client.get(f"{API}/builds/{build}/logs/search", params={"text": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    slots._busy.clear()
    for text in ("", "a\nb", "x" * 201):
        answer = client.get(f"{API}/builds/{build}/logs/search", params={"text": text})
        assert answer.status_code == 422, text
