"""Ports of VMs in a browser: below a path of the server, or each under a host name of its own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.entered import ENTER, Entered, entered
from tests.support.http_service import ALL, TENANT
from tests.support.sandboxes import SandboxWorld
from tests.support.sandboxes import sandbox as sandbox  # the fixture
from tests.support.session_world import sshd as sshd
from tests.support.session_world import world as world
from tests.support.sshd import Sshd, free_port
from tests.support.web_service import EchoSocket, RawService, WebService
from vmrunner.model import TokenScope
from vmrunner.server import port_proxy

pytestmark = pytest.mark.timeout(120)
BROWSER = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
LOGIN = ENTER | {TokenScope.READ}
DOMAIN = "*.ports.example.org"
CHAT = [Subprotocol("chat")]


@pytest.fixture
def served(
    tmp_path: Path,
    sandbox: SandboxWorld,
    sshd: Sshd,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Entered]:
    server = getattr(request, "param", {})
    with entered(tmp_path, sshd, monkeypatch, server=server) as found:
        found.running("b-2", sandbox_ttl=600.0, steps=())
        yield found


@pytest.fixture
def web() -> Iterator[WebService]:
    found = WebService()
    yield found
    found.close()


def base(port: int, build: str = "b-2") -> str:
    return f"/api/v1/builds/{build}/ports/{port}"


def browser(served: Entered) -> httpx2.Client:
    """One that is logged in."""
    client = served.http.client("")
    assert client.post("/login", data={"token": served.token(scopes=LOGIN)}).status_code == 303
    return client


def entered_port(served: Entered, port: int) -> tuple[httpx2.Client, str]:
    """A browser that opened a port, and the path with its key."""
    client = browser(served)
    answer = client.get(f"{base(port)}/", headers=BROWSER)
    assert answer.status_code == 303, answer.text
    return client, answer.headers["location"]


def test_a_token_reads_a_port_over_http(served: Entered, web: WebService) -> None:
    client = served.http.client(served.token())
    answer = client.post(f"{base(web.port)}/a%2Fb/c?x=1&y=%20", content=b"x" * 300_000)
    document = answer.json()
    assert (document["method"], document["path"], document["body"]) == (
        "POST",
        "/a%2Fb/c?x=1&y=%20",
        300_000,
    )
    document = client.put(f"{base(web.port)}/up", content=iter([b"a" * 70_000] * 3)).json()
    assert (document["body"], document["headers"]["transfer-encoding"]) == (210_000, "chunked")
    assert client.head(f"{base(web.port)}/").status_code == 200
    missing = client.get(f"{base(free_port())}/")
    assert (missing.status_code, "is the service up" in missing.json()["fix"]) == (404, True)


def test_nothing_of_a_caller_goes_into_the_vm(served: Entered, web: WebService) -> None:
    client, keyed = entered_port(served, web.port)
    headers = {
        "X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Csrf-Token": "secret",
        "Connection": "close, X-Hop", "X-Hop": "1", "X-Kept": "1", "Referer": client.base_url.host,
    }  # fmt: skip
    answer = client.get(f"{keyed}page", headers=headers).json()["headers"]
    assert "cookie" not in answer
    gone = {"authorization", "x-forwarded-for", "forwarded", "x-csrf-token", "x-hop", "referer"}
    assert not gone & set(answer)
    assert (answer["host"], answer["x-kept"]) == (f"localhost:{web.port}", "1")
    assert answer["x-forwarded-prefix"] == keyed.rstrip("/")
    assert answer["x-forwarded-host"] == f"{client.base_url.host}:{client.base_url.port}"
    token = served.token()
    answer = served.http.client(token).get(f"{base(web.port)}/").json()
    assert token not in json.dumps(answer)


def test_a_cookie_is_of_one_port_alone(served: Entered, web: WebService) -> None:
    other = WebService()
    client = browser(served)
    answer = client.get(f"{base(web.port)}/x?y=1", headers=BROWSER)
    cookie = answer.headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    value, *words = [word.strip().lower() for word in rest.split(";")]
    assert name == "vmrunner_port"
    assert {"httponly", "samesite=lax", f"path={base(web.port)}/"} <= set(words)
    login = client.cookies.get(f"vmrunner_login_{served.http.listener.port}")
    assert login is not None
    assert login not in value
    served.running("b-3")
    alone = served.http.client("")
    shown = {"Cookie": f"vmrunner_port={value}"}
    assert alone.get(f"{base(web.port)}/", headers=shown).status_code == 200
    for path in (f"{base(other.port)}/", f"{base(web.port, 'b-3')}/", "/api/v1/builds", "/"):
        assert alone.get(path, headers=shown).status_code == 401, path
    forged = value[:-1] + ("0" if value[-1] != "0" else "1")
    for wrong in (forged, login, value.replace(".0.", ".9999999999."), "x", "é", "." * 300):
        shown = {"Cookie": b"vmrunner_port=" + wrong.encode()}  # type: ignore[dict-item]
        assert alone.get(f"{base(web.port)}/", headers=shown).status_code == 401, wrong
    key = answer.headers["location"].split("~")[1].split("/")[0]
    shown = {"Cookie": f"vmrunner_port={key}"}
    assert alone.get(f"{base(web.port)}/", headers=shown).status_code == 401, "another use"
    client.post("/logout", headers={"X-Csrf-Token": csrf(served, client)})
    shown = {"Cookie": f"vmrunner_port={value}"}
    assert alone.get(f"{base(web.port)}/", headers=shown).status_code == 401, "its login is over"
    assert alone.get(answer.headers["location"]).status_code == 401
    other.close()


def csrf(served: Entered, client: httpx2.Client) -> str:
    cookie = client.cookies.get(f"vmrunner_login_{served.http.listener.port}")
    found = served.ledger.tokens.login(cookie or "", 1.0)
    assert found is not None
    return found[1]


def test_what_a_vm_sends_has_no_power_over_the_page(served: Entered, web: WebService) -> None:
    headers = [
        ("Set-Cookie", "theirs=evil; Path=/"), ("Clear-Site-Data", '"cookies"'),
        ("Set-Cookie", "vmrunner_login_1=evil; Path=/"),
        ("Service-Worker-Allowed", "/"), ("Strict-Transport-Security", "max-age=1"),
        ("Alt-Svc", 'h3="evil:1"'), ("WWW-Authenticate", "Basic"), ("Connection", "X-Evil"),
        ("X-Evil", "1"), ("Access-Control-Allow-Origin", "*"), ("X-Own", "1"),
        ("Content-Security-Policy", "default-src 'self'"), ("Content-Type", "text/html"),
    ]  # fmt: skip
    web.answers["/"] = (200, headers, b"<script>1</script>")
    for target in (f"http://localhost:{web.port}/next", "/next"):
        web.answers["/moved"] = (302, [("Location", target)], b"")
        client, keyed = entered_port(served, web.port)
        assert client.get(f"{keyed}moved").headers["location"] == f"{keyed}next"
    answer = client.get(keyed)
    assert answer.headers["x-own"] == "1"
    for name, _ in headers[:8]:
        assert name.lower() not in answer.headers or name == "Connection", name
    assert "x-evil" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    policies = answer.headers.get_list("content-security-policy")
    assert any(policy.startswith("sandbox ") for policy in policies)
    assert not any("allow-same-origin" in policy for policy in policies)
    worker = client.get(keyed, headers={"Service-Worker": "script"})
    assert worker.status_code == 403


def test_a_page_of_no_origin_reads_its_own_port(served: Entered, web: WebService) -> None:
    client, keyed = entered_port(served, web.port)
    opaque = {"Origin": "null", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    alone = served.http.client("")
    answer = alone.get(f"{keyed}data", headers=opaque)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "null")
    preflight = alone.options(
        f"{keyed}data", headers={**opaque, "Access-Control-Request-Method": "PUT"}
    )
    assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (
        204,
        "PUT",
    )
    evil = {
        "Origin": "https://evil.example",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "cors",
    }
    assert client.post(f"{base(web.port)}/", headers=evil).status_code == 403
    assert client.post(f"{base(web.port)}/", headers=opaque).status_code == 403


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 502), (b"\r\n\r\nnonsense", 502), (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 None\r\n\r\nHTTP/1.1 200 OK\r\n", 204),
        (b"HTTP/1.1 200 K\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1", 200),
    ],
)  # fmt: skip
def test_a_hostile_answer_is_one_answer_at_most(
    served: Entered, answer: bytes, status: int
) -> None:
    service = RawService(answer)
    client = served.http.client(served.token())
    for _ in range(2):
        assert client.get(f"{base(service.port)}/").status_code == status
    service.close()


def test_an_answer_that_breaks_off_is_no_whole_one(served: Entered) -> None:
    client = served.http.client(served.token())
    for head in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
        service = RawService(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n5\r\nhello" % head)
        with pytest.raises(httpx2.RemoteProtocolError):
            client.get(f"{base(service.port)}/")
        service.close()


def test_a_service_that_is_silent_is_given_up(
    served: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_proxy, "HEAD_TIMEOUT", 0.3)
    service = RawService(b"HTTP/1.1 200", stays=True)
    assert served.http.client(served.token()).get(f"{base(service.port)}/").status_code == 504
    service.close()


def test_a_right_that_ends_ends_a_socket_that_is_silent(
    served: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_proxy, "RECHECK", 0.05)
    echo = EchoSocket()
    headers = {"Authorization": f"Bearer {served.token()}"}
    url = f"{served.http.url.replace('http', 'ws', 1)}{base(echo.port)}/"
    with connect(url, additional_headers=headers, subprotocols=CHAT, proxy=None) as socket:
        socket.send("in")
        assert socket.recv(timeout=20) == "in"
        served.ledger.tokens.revoke(served.ledger.tokens.list()[-1].id, 1.0)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4401
    echo.close()


@pytest.mark.parametrize("kind", ["http", "ws"])
def test_a_build_that_ends_ends_its_answers(
    served: Entered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setattr(port_proxy, "RECHECK", 0.05)
    token = served.token()
    if kind == "ws":
        echo = EchoSocket()
        url = f"{served.http.url.replace('http', 'ws', 1)}{base(echo.port, 'b-1')}/"
        headers = {"Authorization": f"Bearer {token}"}
        with connect(url, additional_headers=headers, subprotocols=CHAT, proxy=None) as socket:
            served.finish()
            with pytest.raises(ConnectionClosed, match="b-1 has no VM"):
                socket.recv(timeout=20)
        echo.close()
    else:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
        service = RawService(head, stays=True)
        path = f"{base(service.port, 'b-1')}/"
        with served.http.client(token).stream("GET", path) as answer:
            served.finish()
            with pytest.raises(httpx2.RemoteProtocolError):
                answer.read()
        service.close()
    ours = [each for each in caplog.records if not each.name.startswith("websockets")]
    assert [each for each in ours if each.exc_info] == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101", b"HTTP/1.1 101 S\r\nX: 1\r\n\r\n"])
def test_a_handshake_that_comes_to_nothing_is_told(
    served: Entered, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(port_proxy, "HEAD_TIMEOUT", 0.3)
    service = RawService(answer, stays=True)
    headers = {"Authorization": f"Bearer {served.token()}"}
    ws = served.http.url.replace("http", "ws", 1)
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(f"{ws}{base(service.port)}/", additional_headers=headers, proxy=None),
    ):
        pass
    assert caught.value.response.status_code in (502, 504)
    service.close()


def test_odd_names_of_ports_are_none(served: Entered) -> None:
    shown = {"Cookie": "vmrunner_port=a.0.b"}
    nobody, somebody = served.http.client(""), served.http.client(served.token())
    for port in ("9" * 5000, "00000080", "²"):
        path = f"/api/v1/builds/b-2/ports/{port}/"
        assert nobody.get(path, headers=shown).status_code == 401
        assert somebody.get(path).status_code == 422
    assert somebody.get("/api/v1/builds/b-2%00/ports/80/").status_code == 404


def test_a_body_has_one_length_in_the_vm(served: Entered) -> None:
    """Of two that a caller says, one would be taken by a service that reads as others do not."""
    service = RawService(b"HTTP/1.1 204 No Content\r\n\r\n")
    head = (
        f"POST {base(service.port)}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n"
        f"Authorization: Bearer {served.token()}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.http.listener.port), 20) as caller:
        caller.sendall(head.encode() + b"3\r\nabc\r\n0\r\n\r\n")
        assert caller.recv(1 << 16).startswith(b"HTTP/1.1 204")
    (received,) = service.received
    assert b"content-length" not in received.lower()
    service.close()


def test_no_request_is_smuggled_into_a_vm(served: Entered) -> None:
    service = RawService(b"HTTP/1.1 204 No Content\r\n\r\n")
    client = served.http.client(served.token())
    client.get(f"{base(service.port)}/a%0d%0aX:%201?q=%0d%0aY:%202", headers={"X-A": "b"})
    (head,) = service.received
    assert head.startswith(b"GET /a%0d%0aX:%201?q=%0d%0aY:%202 HTTP/1.1\r\n")
    assert head.count(b"\r\n\r\n") == 1
    assert b"connection: close\r\n" in head.lower()
    service.close()


@pytest.mark.parametrize("way", ["token", "key", "cookie"])
def test_a_websocket_goes_through(served: Entered, way: str) -> None:
    echo = EchoSocket()
    ws = served.http.url.replace("http", "ws", 1)
    path, headers = f"{base(echo.port)}/chat?x=1", {}
    if way == "token":
        headers = {"Authorization": f"Bearer {served.token()}"}
    else:
        client, keyed = entered_port(served, echo.port)
        proof = client.cookies.get("vmrunner_port")
        path = f"{keyed}chat?x=1" if way == "key" else path
        headers = {"Cookie": f"vmrunner_port={proof}; a=b", "Origin": served.http.url}
        headers = {"Origin": "null"} if way == "key" else headers
    with connect(
        ws + path,
        additional_headers=headers,
        subprotocols=["chat"],
        compression=None,
        proxy=None,  # type: ignore[list-item]
    ) as socket:
        assert socket.subprotocol == "chat"
        socket.send("text é")
        assert socket.recv(timeout=20) == "text é"
        socket.send([b"a" * 70_000, b"b" * 70_000])
        assert socket.recv(timeout=20) == b"a" * 70_000 + b"b" * 70_000
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as you wish")
    assert echo.headers["host"] == f"localhost:{echo.port}"
    assert not {"authorization", "cookie"} & set(echo.headers)
    echo.close()


def test_a_websocket_that_a_service_refuses_is_none(served: Entered) -> None:
    echo, raw = EchoSocket(), RawService(b"HTTP/1.1 200 OK\r\n\r\n")
    headers = {"Authorization": f"Bearer {served.token()}"}
    ws = served.http.url.replace("http", "ws", 1)
    for port in (echo.port, raw.port, free_port()):
        with (
            pytest.raises(InvalidStatus) as caught,
            connect(f"{ws}{base(port)}/refused", additional_headers=headers, proxy=None),
        ):
            pass
        assert caught.value.response.status_code in (502, 404)
    echo.close()
    raw.close()


def test_ports_are_closed_to_others(served: Entered, web: WebService) -> None:
    for kind in ("builds", "sandboxes"):
        path = f"/api/v1/{kind}/b-2/ports/{web.port}/"
        assert served.http.client("").get(path).status_code == 401
        assert served.http.client("vmr_wrong").get(path).status_code == 401
        for scopes in (ALL - ENTER, TENANT, frozenset({TokenScope.ADMIN})):
            assert served.http.client(served.http.token(scopes)).get(path).status_code == 403
        other = served.http.client(served.http.token(ENTER, labels={"team": "b"}))
        assert other.get(path).status_code == 404
        asks = served.http.client("").get(path, headers=BROWSER)
        assert (asks.status_code, asks.headers["location"]) == (303, f"/login?next={path}")
    assert web.requests == []
    reader = served.http.client("")
    reader.post("/login", data={"token": served.token(scopes=TENANT)})
    assert reader.get(f"{base(web.port)}/", headers=BROWSER).status_code == 403
    assert browser(served).post(f"{base(web.port)}/").status_code == 403, "a login opens it first"


def raw(url: str, target: str, host: str) -> bytes:
    """The head of the answer to a target that no client would send so."""
    place = httpx2.URL(url)
    with socket.create_connection((place.host, place.port or 80), timeout=20) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        found = b""
        while b"\r\n\r\n" not in found and (data := connection.recv(1 << 16)):
            found += data
    return found


@pytest.mark.parametrize(
    "served", [{"url": "https://builds.example.org", "port_domain": DOMAIN}], indirect=True
)
def test_a_port_has_a_host_name_of_its_own(served: Entered, web: WebService) -> None:
    own = f"{web.port}-b-2.ports.example.org"
    login = served.http.client("")
    answer = login.post("/login", data={"token": served.token(scopes=LOGIN)})
    shown = answer.headers["set-cookie"].split(";")[0]
    sent = login.get(f"{base(web.port)}/x?y=1", headers={**BROWSER, "Cookie": shown})
    target = httpx2.URL(sent.headers["location"])
    assert (target.scheme, target.host, target.path) == ("https", own, "/x")
    assert "set-cookie" not in sent.headers
    plain = served.http.client("")
    handed = plain.get(target.raw_path.decode(), headers={"Host": own, **BROWSER})
    assert (handed.status_code, handed.headers["location"]) == (303, "/x?y=1")
    cookie = handed.headers["set-cookie"]
    assert cookie.startswith("__Host-vmrunner_port=")
    assert {"httponly", "secure", "path=/", "samesite=lax"} <= {
        word.strip().lower() for word in cookie.split(";")[1:]
    }
    mine = {"Host": own, "Cookie": f"{cookie.split(';')[0]}; theirs=1"}
    web.answers["/"] = (
        200,
        [
            ("Set-Cookie", "theirs=1; Path=/; Domain=example.org"),
            ("Set-Cookie", "__Host-vmrunner_port=evil; Path=/; Secure"),
            ("Clear-Site-Data", '"*"'),
        ],
        b"own",
    )
    found = plain.get("/", headers=mine)
    assert (found.status_code, found.text) == (200, "own")
    assert found.headers.get_list("set-cookie") == ["theirs=1; Path=/"]
    assert "clear-site-data" not in found.headers
    assert "content-security-policy" not in found.headers
    assert web.requests[-1]["headers"]["cookie"] == "theirs=1"
    for other in (f"{web.port}-b-1.ports.example.org", "x.ports.example.org"):
        assert plain.get("/", headers={**mine, "Host": other}).status_code in (401, 404)
    later = plain.get(target.raw_path.decode(), headers={"Host": own})
    assert later.status_code == 303
    served.http.clock[:] = [served.http.parts.now() + 61]
    late = plain.get(target.raw_path.decode(), headers={"Host": own, **BROWSER})
    assert "set-cookie" not in late.headers, "a handover is worth a minute"
    for elsewhere in ("//evil.example/x", "/\\evil.example/x"):
        url = f"http://{plain.base_url.host}:{plain.base_url.port}"
        sent = raw(url, f"{elsewhere}?vmrunner_enter=x", own)
        assert b"location: /evil.example/x\r\n" in sent.lower()
    unknown = plain.get("/z?q=1", headers={"Host": own, **BROWSER})
    assert unknown.headers["location"] == f"https://builds.example.org{base(web.port)}/z?q=1"


@pytest.mark.parametrize(
    "served", [{"url": "https://builds.example.org", "port_domain": DOMAIN}], indirect=True
)
def test_another_ports_page_sends_nothing_here(served: Entered, web: WebService) -> None:
    own = f"{web.port}-b-2.ports.example.org"
    login = served.http.client("")
    answer = login.post("/login", data={"token": served.token(scopes=LOGIN)})
    shown = {**BROWSER, "Cookie": answer.headers["set-cookie"].split(";")[0]}
    target = httpx2.URL(login.get(f"{base(web.port)}/", headers=shown).headers["location"])
    plain = served.http.client("")
    handed = plain.get(target.raw_path.decode(), headers={"Host": own, **BROWSER})
    mine = {"Host": own, "Cookie": handed.headers["set-cookie"].split(";")[0]}
    sibling = {"Origin": "https://1-b-9.ports.example.org", "Sec-Fetch-Site": "same-site"}
    for method, more in (
        ("POST", sibling), ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
    ):  # fmt: skip
        assert plain.request(method, "/", headers={**mine, **more}).status_code == 403, more
    assert web.requests == []
    linked = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}
    assert plain.get("/", headers={**mine, **linked}).status_code == 200
    ours = {"Origin": f"https://{own}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    document: dict[str, Any] = plain.post("/", headers={**mine, **ours}).json()
    assert document["headers"]["origin"] == f"http://localhost:{web.port}"
