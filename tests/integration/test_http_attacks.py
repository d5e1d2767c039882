"""What a hostile caller tries beside what is in the document: pages, scopes, names, time."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Message

from tests.support.http_service import OTHERS, TENANT, Service, only, service
from tests.support.ledger_builds import submitted
from tests.support.pools import POOL
from tests.support.scripted_app import wait_until
from vmrunner.errors import LedgerError
from vmrunner.model import TokenScope
from vmrunner.server.authentication import OPEN
from vmrunner.server.routes import logs

API = "/api/v1"
#: What a token enters, as a request that is no WebSocket.
ENTERED = {
    f"{API}/{kind}/b-x/{what}"
    for kind in ("builds", "sandboxes")
    for what in ("terminal", "ports/8000")
}
SSE = {"Accept": "text/event-stream"}
#: What is named in a path.
NAMES = {
    "build": "b-x",
    "instance": "vm-x",
    "path": "a",
    "pool": "p",
    "port": "8000",
    "token": "t-x",
    "cache": "c-x",
    "sandbox": "b-x",
    "command": "x-1",
    "name": "x",
}


def every_route(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of all that the application answers to, pages too."""
    for route in routes:
        nested = getattr(route, "original_router", None)
        if nested is not None:
            context = route.include_context  # type: ignore[attr-defined]
            yield from every_route(nested.routes, before + context.prefix)
        elif isinstance(route, Route) or hasattr(route, "methods"):
            for method in sorted(route.methods or ()):
                path = before + route.path  # type: ignore[attr-defined]
                yield method, path.replace(":path}", "}").format(**NAMES)
        else:  # WebSockets: test_http_terminals.py
            assert isinstance(route, Mount | WebSocketRoute), route


def closed_routes(http: Service) -> list[tuple[str, str]]:
    found = [
        (method, path)
        for method, path in every_route(http.listener.app.routes)
        if not path.startswith("/login") and path not in OPEN and method not in ("HEAD", "OPTIONS")
    ]
    assert len(found) > 35
    assert ("POST", "/tokens/t-x/revoke") in found
    return found


def test_no_page_answers_without_a_token(http: Service) -> None:
    client = http.client("")
    for method, path in closed_routes(http):
        assert client.request(method, path).status_code == 401, path
    asks = client.get("/vms", headers={"Accept": "text/html"})
    assert (asks.status_code, asks.headers["location"]) == (303, "/login?next=/vms")
    asks = client.get("/?state=held&label=a%3Db", headers={"Accept": "text/html"})
    shown = client.get(asks.headers["location"]).text
    assert 'value="/?state=held&amp;label=a%3Db"' in shown, "a shared filter outlives the login"


@pytest.mark.parametrize("target", ["http://[", "//[", "//evil.example", "/\\evil.example", "\r"])
def test_a_login_leads_nowhere_else(http: Service, target: str) -> None:
    answer = http.client("").get("/login", params={"next": target})
    assert answer.status_code == 200
    assert 'name="next" value="/"' in answer.text


def test_a_callers_host_is_no_address_of_ours(http: Service) -> None:
    """Behind TLS a redirect of ours would lead to a server without, and to whoever is named."""
    client = http.client()
    for path in (f"{API}/builds/", "/vms/", f"{API}/token/", "/static"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


@pytest.mark.parametrize("scope", sorted(set(TokenScope) - {TokenScope.ADMIN}))
def test_a_scope_opens_its_own_routes_alone(http: Service, scope: TokenScope) -> None:
    client = http.client(http.token(frozenset({scope})))
    opened = {
        (method, path)
        for method, path in closed_routes(http)
        if client.request(method, path, headers=SSE).status_code != 403
    }
    scopes = {"GET": TokenScope.READ, "POST": TokenScope.SUBMIT, "PUT": TokenScope.SUBMIT}
    scopes["DELETE"] = TokenScope.SUBMIT
    everybody = {("GET", "/readyz"), ("POST", "/logout")}
    if scope is TokenScope.READ:
        everybody.add(("POST", f"{API}/audit"))  # it changes nothing
    if scope is TokenScope.SUBMIT:
        everybody.add(("GET", f"{API}/sandboxes/b-x/files"))  # secrets may lie there
    if scope is TokenScope.ENTER:
        assert opened - everybody == {("GET", path) for path in ENTERED}
    elif scope is TokenScope.METRICS:
        assert opened - everybody == {("GET", "/metrics")}
    else:
        assert {scopes[method] for method, _ in opened - everybody} <= {scope}
        assert all(path.startswith((API, "/")) for _, path in opened)
        assert not {path for _, path in opened} & {"/metrics", f"{API}/reap", f"{API}/drain"}


@pytest.mark.parametrize("url", ["", "https://builds.example.org"])
def test_a_cookie_is_of_this_server_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Over TLS no other host can set it; without, another server at this address has its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with service(tmp_path, server={"url": url}) as http:
        answer = http.client("").post("/login", data={"token": http.token()})
        name, _, rest = answer.headers["set-cookie"].partition("=")
        port = http.listener.port
        assert name == ("__Host-vmrunner_login" if url else f"vmrunner_login_{port}")
        words = {word.strip().lower() for word in rest.split(";")[1:]}
        assert {"httponly", "path=/", "samesite=strict"} <= words
        assert ("secure" in words) is bool(url)
        assert not any(word.startswith("domain") for word in words)
        value = rest.split(";")[0]
        for named, status in ((name, 200), ("vmrunner_login", 401), ("vmrunner_login_1", 401)):
            shown = {"Cookie": f"{named}={value}"}
            assert http.client("").get(f"{API}/builds", headers=shown).status_code == status, named


def test_an_image_that_is_not_here_tells_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with service(tmp_path, providers={"local": {"kind": "qemu"}}) as http:
        body = {"steps": ["x"], "image": "golden"}
        answer = http.tenant(team="a").post(f"{API}/builds?dry_run=true", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "image")
        assert str(tmp_path) not in answer.text
        assert "there:" not in answer.text


@pytest.mark.parametrize("theirs", OTHERS)
def test_a_page_shows_no_other_tenants_things(http: Service, theirs: dict[str, str]) -> None:
    mine, other = http.tenant(team="a"), http.tenant(**theirs)
    build = only(mine.post(f"{API}/builds", json={"steps": ["say x"], "name": "secret-name"}))["id"]
    vm = http.ended(build)._row.instance
    for word in (build, build[:-1], build[2:], "secret-name"):
        for method, path in (("GET", ""), ("POST", "/again")):
            assert other.request(method, f"/builds/{word}{path}").status_code == 404
        for verb in ("cancel", "remove", "extend", "lease"):
            assert other.post(f"{API}/builds/{word}/{verb}").status_code == 404
    for name in (vm, str(vm)[:-1], str(vm)[:8]):
        assert other.post(f"{API}/instances/{name}/destroy").status_code == 404
    for path in ("/", "/vms", "/vms?gone=true", "/?label=team%3Da"):
        text = other.get(path).text
        assert "secret-name" not in text
        assert build not in text
    for path in ("/pools", "/nodes", "/audit", "/actions", "/tokens"):
        assert other.get(path).status_code == 403
    assert http.app.ledger.builds.get(build).removed_at is None


@pytest.mark.parametrize(
    ("former", "field"),
    [({"privileged": True}, "privileged"), ({"ttl": 1e6}, "ttl"), ({"provider": "x"}, "provider")],
)
def test_what_is_run_again_obeys_the_limits_of_now(
    http: Service, former: dict[str, Any], field: str
) -> None:
    """It was allowed then, or to somebody else."""
    build = submitted(http.app.ledger, "b-1", **{"provider": "fake", **former}).id
    answer = http.client().post(f"/builds/{build}/again")
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (422, field)
    assert len(http.app.ledger.builds.list()) == 1


@pytest.mark.parametrize("labels", [{}, {"team": "a"}])
def test_a_page_offers_what_its_token_may(http: Service, labels: dict[str, str]) -> None:
    http.app.ledger.pools.declare({"fast": POOL}, "e-1", 100.0)
    client = http.client(http.token(frozenset({TokenScope.READ}), labels=labels))
    offered = re.findall('href="(/[a-z]*)"', client.get("/").text)
    assert len(offered) > 3
    for path in offered:
        answer = client.get(path)
        assert (answer.status_code, "data-post=" in answer.text) == (200, False), path


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/token", b'{"jwt": "' + b"x" * 70_000 + b'"}', 413),  # nobody has shown a token yet
        ("/builds", b'{"steps": ["' + b"x" * (3 << 20) + b'"]}', 413),
        ("/builds/b-x/cancel", b'{"reason": "' + b"x" * 70_000 + b'"}', 404),
    ],
)
def test_a_body_whose_length_nobody_tells_is_bounded(
    http: Service, path: str, content: bytes, status: int
) -> None:
    pieces = (content[at : at + 65536] for at in range(0, len(content), 65536))
    try:
        answer = http.client().post(f"{API}{path}", content=pieces)
    except httpx2.WriteError:
        return  # it was hung up on before it had sent all
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("builds/%ff%fe", {}),
        ("builds/%ed%a0%80/logs", {}),
        ("builds?label=%ff=%fe", {}),
        ("builds?after=%ff", {}),
        ("builds/..%2f..%2fetc", {}),
        ("builds/x%0d%0aSet-Cookie:%20a=b", {}),
        ("builds/b-x/logs", {b"Range": b"bytes=\xb2-\xb3"}),
        ("builds/b-x/logs", {b"Last-Event-ID": b"\xb2\xff"}),
        ("builds", {b"Accept": b"\xff" * 4000}),
        ("builds", {b"Cookie": b"vmrunner_login=\xff; \x01=;;,"}),
    ],
)
def test_broken_words_are_no_error_of_ours(
    http: Service, path: str, headers: dict[bytes, bytes]
) -> None:
    answer = http.client().get(f"{API}/{path}", headers=headers)
    assert answer.status_code < 500
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("shown", [b"Bearer \xff\xfe", b"Bearer vmr_" + b"x" * 30_000, b"\xff"])
def test_a_broken_token_is_none(http: Service, shown: bytes) -> None:
    answer = http.client("").get(f"{API}/builds", headers={b"Authorization": shown})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/login", f"{API}/token"])
def test_who_leaves_amid_a_body_is_no_error_of_ours(
    http: Service, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Anybody can do that, as often as he likes."""
    events = iter([{"type": "http.request", "body": b"{", "more_body": True}])
    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [],
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return next(events, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(http.listener.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_upload_that_fills_the_disk_is_refused(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody said how many bytes come. Two parts may come as one."""
    free = iter([1 << 40])
    usage = lambda _: SimpleNamespace(free=next(free, 0))  # noqa: E731
    monkeypatch.setattr("vmrunner.services.uploads.shutil", SimpleNamespace(disk_usage=usage))
    parts = iter([b"x" * (1 << 16)] * 2)
    answer = http.client().put(f"{API}/sources", content=parts)
    assert (answer.status_code, answer.json()["error"]) == (507, "NoRoom")
    wait_until(lambda: not list(http.app.paths.sources.iterdir()))


# --- streams for hours ----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_stream_of_hours_ends_with_its_token(
    http: Service, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(logs, "KEEPALIVE", 0.05)
    monkeypatch.setattr(logs, "RECHECK", 0.1)
    hour = time.time() + 3600
    client = http.client(http.token(TENANT, expires_at=hour))
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    token = http.app.ledger.tokens.list()[-1].id
    lines: list[str] = []

    def follow() -> None:
        with client.stream("GET", f"{API}/builds/{build}/logs", headers=SSE) as answer:
            lines.extend(answer.iter_lines())

    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: http.listener.app.state.stream_slots._busy)
    http.clock[:] = [hour - 1]
    if end == "revoked":
        http.app.ledger.tokens.revoke(token, hour - 1)
    else:
        http.clock[:] = [hour + 1]
    thread.join(20)
    assert not thread.is_alive()
    assert not [line for line in lines if line.startswith("event:")]
    assert not http.listener.app.state.pages._followers


def test_a_stream_breaks_off_where_the_ledger_is_away(
    http: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hundreds of followers come again, and a log has no traceback of each."""
    client = http.client()
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]

    def away(_: str) -> None:
        raise LedgerError("the ledger's database failed: away")

    with client.stream("GET", f"{API}/builds/{build}/events", headers=SSE) as answer:
        lines = answer.iter_lines()
        received = [next(lines)]
        monkeypatch.setattr(http.app.ledger.builds, "progress", away)
        received += lines
    assert not [line for line in received if line == "event: end"]
    assert [record.exc_info for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"timeout": "soon"}, "timeout", "soon"),
        ({"timeot": "5m"}, "timeot", "5m"),
        ({"provider": "x" * 500}, "provider", "x" * 200),
        ({"cpus": -1}, "cpus", -1),
        ({"cpus": 10**40}, "cpus", None),
        ({"env": {"A B": "hidden"}}, None, None),
        ({"secrets": {"9": "hidden"}}, "secrets", None),
    ],
)
def test_a_problem_tells_the_value_and_no_secret(
    http: Service, body: dict[str, object], field: str | None, value: object
) -> None:
    answer = http.client().post(f"{API}/builds", json={"steps": ["say x"], **body})
    problem = answer.json()
    assert (answer.status_code, problem["value"]) == (422, value)
    assert problem["field"] == field
    assert "hidden" not in answer.text


def test_a_tenant_reads_no_other_tenants_line(http: Service) -> None:
    admin = http.client()
    admin.post(f"{API}/drain")
    for name in ("x", "y"):
        admin.post(f"{API}/builds", json={"steps": ["say x"], "name": name})
    mine = http.tenant(team="a")
    build = only(mine.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
    stopped = "launching is stopped (drain)"
    paths = (f"{API}/builds", f"{API}/builds/{build}", f"{API}/builds/{build}?brief=true")
    assert {only(mine.get(path))["waiting"] for path in paths} == {stopped}
    assert f"{stopped}</" in mine.get(f"/builds/{build}", headers={"Accept": "text/html"}).text
    waiting = only(admin.get(f"{API}/builds/{build}"))["waiting"]
    assert waiting == f"{stopped}; number 2 of 3 in line"
