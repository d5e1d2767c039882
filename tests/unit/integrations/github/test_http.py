"""One request to GitHub: what it is told to wait, and what is no limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.unit.lib.test_whole_answers import HEAD, dripping
from vmrunner.errors import ConfigError
from vmrunner.integrations.github import http
from vmrunner.integrations.github.errors import GithubAway, GithubError
from vmrunner.integrations.github.http import ANSWER_BYTES, GithubHttp
from vmrunner.integrations.github.identity import PersonalToken
from vmrunner.integrations.github.listener import HELD, REFUSED, pause_after

NOW = 1_800_000_000.0
TOMORROW = "Sat, 16 Jan 2027 08:00:20 GMT"
URL = "https://api.github.com/orgs/acme/x?token=hidden"


def requested(answer: httpx2.Response | Exception, bearer: str = "t") -> object:
    def handle(request: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    github = GithubHttp(now=lambda: NOW, transport=httpx2.MockTransport(handle))
    return github.ask("POST", URL, bearer=bearer)


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 90:.0f}"}, "", 91.0),
        (429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW - 9:.0f}"}, "", 1.0),
        (403, {"retry-after": "30"}, "You have exceeded a secondary rate limit", 30.0),
        (429, {"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT"}, "", 20.0),
        (429, {"retry-after": "soon"}, "", 60.0),
        (429, {"retry-after": f"1 Jan 2027 00:00:00 +{'9' * 20}"}, "", 60.0),
        (429, {"retry-after": "9" * 40}, "", 3600.0),
        (429, {"retry-after": "Fri, 15 Jan 9999 08:00:20 GMT"}, "", 3600.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400}, "", 3600.0),
        (403, {}, "You have exceeded a secondary rate limit", 60.0),
        (429, {}, "", 60.0),
        (429, {"retry-after": TOMORROW, "date": "Sat, 16 Jan 2027 08:00:00 GMT"}, "", 20.0),
        (503, {"retry-after": "5", "date": "Fri, 31 Dec 9999 23:59:59 -2359"}, "", 5.0),
        (502, {}, "", None),
    ],
)
def test_a_limit_says_how_long(
    status: int, headers: dict[str, str], message: str, wait: float | None
) -> None:
    with pytest.raises(GithubAway) as caught:
        requested(httpx2.Response(status, headers=headers, json={"message": message}))
    assert caught.value.wait == wait
    assert pause_after(caught.value, 1, lambda: 0.5) == max(wait or 0.0, 1.0)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_refusal_is_no_limit(status: int) -> None:
    headers = {"x-ratelimit-remaining": "41"}
    with pytest.raises(GithubError, match=f"answered {status}: no") as caught:
        requested(httpx2.Response(status, headers=headers, json={"message": "no"}))
    assert not isinstance(caught.value, GithubAway)
    assert "hidden" not in str(caught.value)
    assert pause_after(caught.value, 1, lambda: 0.5) == REFUSED


def test_a_service_that_is_away_is_asked_ever_later() -> None:
    with pytest.raises(GithubAway, match=r"api\.github\.com: refused") as caught:
        requested(httpx2.ConnectError("refused"))
    waits = [pause_after(caught.value, n, lambda: 0.5) for n in (1, 2, 3, 20)]
    assert waits == [1.0, 2.0, 4.0, 60.0]
    assert pause_after(caught.value, 1, lambda: 0.0) < pause_after(caught.value, 1, lambda: 1.0)
    assert pause_after(GithubError("", status=409), 5, lambda: 0.5) == HELD


def test_the_services_own_name_for_an_error_is_kept() -> None:
    kind = "GitHub.DistributedTask.WebApi.JobStillRunningException, GitHub.DistributedTask"
    with pytest.raises(GithubError) as caught:
        requested(httpx2.Response(422, json={"typeName": kind, "message": "it runs"}))
    assert caught.value.kind == "JobStillRunningException"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda: httpx2.Response(200, content=b'\xef\xbb\xbf{"a": 1}'), {"a": 1}),
        (lambda: httpx2.Response(202, json={"none": "yet"}), None),
        (lambda: httpx2.Response(204), None),
    ],
)
def test_an_answer_is_decoded(answer: Callable[[], httpx2.Response], found: object) -> None:
    assert requested(answer()) == found


def test_what_is_no_answer_is_told_so() -> None:
    with pytest.raises(GithubAway, match="what is no JSON"):
        requested(httpx2.Response(200, content=b"<html>"))
    with pytest.raises(GithubError, match="answered 302"):
        requested(httpx2.Response(302, headers={"location": "https://elsewhere.example"}))


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"NaN,"])
def test_no_answer_is_too_odd_to_be_told(body: bytes) -> None:
    with pytest.raises(GithubAway, match="what is no JSON"):
        requested(httpx2.Response(200, content=body))
    with pytest.raises(GithubError, match="answered 400"):
        requested(httpx2.Response(400, content=body))


def test_words_of_a_server_are_one_line_in_a_log() -> None:
    with pytest.raises(GithubError) as caught:
        requested(httpx2.Response(400, json={"message": "no\n2026-11-28 all is well\x1b[2J"}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("page", ["GET /x\r\nauthorization: Bearer %s\r\n", "\xff" * 290 + "%s"])
def test_a_token_that_an_answer_repeats_is_masked(page: str) -> None:
    """As a proxy that debugs does, on a page or as JSON."""
    text = page % "ghp_x0123456789"
    for body in (text.encode(), json.dumps({"message": text}).encode()):
        with pytest.raises(GithubError) as caught:
            requested(httpx2.Response(502, content=body), bearer="ghp_x0123456789")
        assert "ghp_x" not in str(caught.value)


def test_a_user_in_an_address_is_not_told() -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500)

    github = GithubHttp(now=lambda: NOW, transport=httpx2.MockTransport(handle))
    with pytest.raises(GithubAway) as caught:
        github.ask("GET", "https://user:hidden@ghe.example/queue", bearer="t")
    assert "hidden" not in str(caught.value)


def test_an_answer_without_end_is_cut_off() -> None:
    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2 * ANSWER_BYTES:
            sent += 1 << 20
            yield bytes(1 << 20)

    sent = 0
    with pytest.raises(GithubAway, match="an answer of no end"):
        requested(httpx2.Response(200, content=endless()))
    assert sent <= ANSWER_BYTES + (2 << 20)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", HEAD], ids=["head", "body"])
def test_an_answer_that_drips_is_none(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that never ends would be the scale set's last."""
    monkeypatch.setattr(http, "WHOLE", 0.3)
    late = pytest.raises(GithubAway, match=r"as a whole|timed out")
    with dripping(first, b"x") as url, late:
        GithubHttp(now=lambda: NOW).ask("GET", url, bearer="t")


@pytest.mark.parametrize("token", ["ghp_x\n# of ops", "ghp_x…", "ghp_x\r\nX: y", "ghp_x\0"])
def test_a_token_that_no_header_holds_is_not_told(token: str) -> None:
    with pytest.raises(GithubError, match="not one line of ASCII") as caught:
        requested(httpx2.Response(200), bearer=token)
    assert "ghp_x" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"github\.token") as refused:
        PersonalToken(token)
    assert "ghp_x" not in str(refused.value)


def test_an_address_that_is_none_is_told() -> None:
    github = GithubHttp(now=lambda: NOW)
    for url in ("https://[::1", "https://x:port/?token=hidden", "file:///etc/passwd", "\0"):
        with pytest.raises(GithubError) as caught:
            github.ask("GET", url, bearer="t")
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://ghe.example/_apis/x", "HTTP://10.0.0.1/x", "//x/y", "x"])
def test_no_token_crosses_the_network_in_the_clear(url: str) -> None:
    """As where GitHub's own server names an address of behind its proxy."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200)

    requests: list[httpx2.Request] = []
    github = GithubHttp(now=lambda: NOW, transport=httpx2.MockTransport(handle))
    with pytest.raises(GithubError, match="in the clear"):
        github.ask("GET", url, bearer="t")
    assert requests == []
