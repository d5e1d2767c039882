"""What one caller may have of the server: so many uploads, streams and connections, so much of its
memory and disk, for so long."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.http_service import OTHERS, TENANT, Service, only, service
from tests.support.ledger_builds import running
from tests.support.scripted_app import wait_until
from vmrunner.errors import ServerUnreachable
from vmrunner.model import Chunk, Principal, TokenScope
from vmrunner.server import connections, request_bodies, tenant_turns
from vmrunner.server.caller_slots import CALLERS, CallerSlots
from vmrunner.server.problems import HttpProblem
from vmrunner.services.client import HttpClient, http_client

API = "/api/v1"
SSE = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        yield found


def pieces(size: int) -> Iterator[bytes]:
    """A body whose length nobody tells."""
    for _ in range(size // 1024):
        yield b"x" * 1024


@pytest.mark.parametrize("theirs", OTHERS)
def test_unused_sources_of_a_tenant_are_bounded(tmp_path: Path, theirs: dict[str, str]) -> None:
    with service(tmp_path, server={"unused_source_bytes": "10KiB"}) as http:
        mine, other = http.tenant(team="a"), http.tenant(**theirs)
        first = mine.put(f"{API}/sources", content=b"1" * 6000)
        for body in (b"2" * 6000, pieces(6 << 10)):
            refused = mine.put(f"{API}/sources", content=body)
            assert (refused.status_code, refused.json()["error"]) == (429, "QuotaUsedUp")
            assert "server.unused_source_bytes" in refused.json()["fix"]
        assert other.put(f"{API}/sources", content=b"3" * 6000).status_code == 201
        assert mine.put(f"{API}/sources", content=b"4" * 4000).status_code == 201
        wait_until(lambda: not list(http.app.paths.sources.glob("upload-*")))
        submitted = {"steps": ["say x"], "source": first.json()["digest"]}
        build = only(mine.post(f"{API}/builds", json=submitted))["id"]
        assert mine.put(f"{API}/sources", content=b"2" * 6000).status_code == 201
        http.ended(build)
        assert mine.put(f"{API}/sources", content=b"5").status_code == 429, "the first is unused"


def test_unused_sources_of_all_tenants_are_bounded(tmp_path: Path) -> None:
    """Each branch may be a tenant, whose names a pusher makes up."""
    bounds = {"unused_source_bytes": "10KiB", "total_unused_source_bytes": "15KiB"}
    with service(tmp_path, server=bounds) as http:
        for branch in ("a", "b"):
            client = http.tenant(ref=branch)
            assert client.put(f"{API}/sources", content=branch.encode() * 6000).status_code == 201
        for body in (b"c" * 6000, pieces(6 << 10)):
            refused = http.tenant(ref="c").put(f"{API}/sources", content=body)
            assert (refused.status_code, refused.json()["error"]) == (429, "QuotaUsedUp")
            assert "server.total_unused_source_bytes" in refused.json()["fix"]
        assert http.tenant(ref="d").put(f"{API}/sources", content=b"d" * 3000).status_code == 201


def test_streams_of_all_tokens_are_bounded() -> None:
    slots = CallerSlots("streams", lambda: 2)
    callers = [Principal(actor=f"oidc:x#{n}", scopes=frozenset()) for n in range(CALLERS + 1)]
    for caller in callers[:CALLERS]:
        slots.take(caller)
        slots.take(caller)
    with pytest.raises(HttpProblem, match="of all tokens"):
        slots.take(callers[-1])
    slots.give_back(callers[0])
    slots.take(callers[-1])


def test_uploads_under_way_count(tmp_path: Path) -> None:
    with service(tmp_path, server={"unused_source_bytes": "10KiB"}) as http:
        mine, second = http.tenant(team="a"), http.tenant(team="a")
        answers = []

        def slowly() -> Iterator[bytes]:
            yield b"1" * 6000
            coming = http.listener.app.state.coming_bytes
            wait_until(lambda: coming.add('{"team": "a"}', 0)[0] == 6000)
            answers.append(second.put(f"{API}/sources", content=b"2" * 6000).status_code)

        assert mine.put(f"{API}/sources", content=slowly()).status_code == 201
        assert answers == [429]


def test_streams_of_a_token_are_bounded(tmp_path: Path) -> None:
    with service(tmp_path, server={"streams": 2}) as http:
        token, other = http.token(TENANT), http.client()
        client = http.client(token)
        build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"]
        with ExitStack() as stack:
            for path in ("logs", "events"):
                answer = stack.enter_context(
                    client.stream("GET", f"{API}/builds/{build}/{path}", headers=SSE)
                )
                assert answer.status_code == 200
            for path in ("logs", "events"):
                refused = client.get(f"{API}/builds/{build}/{path}", headers=SSE)
                assert refused.status_code == 429
                assert refused.headers["content-type"] == "application/problem+json"
                assert int(refused.headers["retry-after"]) > 0
            with other.stream("GET", f"{API}/builds/{build}/logs", headers=SSE) as answer:
                assert answer.status_code == 200
        slots = http.listener.app.state.stream_slots
        wait_until(lambda: not slots._busy)
        assert client.get(f"{API}/builds/{build}/logs").status_code == 200


def test_a_client_waits_for_a_place_of_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "RETRY_PAUSE", 0.05)
    refused: list[str] = []

    def take(slots: CallerSlots, principal: Principal) -> None:
        """Whoever is refused has a place the next time."""
        try:
            taken(slots, principal)
        except HttpProblem as error:
            refused.append(error.detail)
            slots.give_back(principal)
            raise

    taken = CallerSlots.take
    with ExitStack() as stack:
        http = stack.enter_context(service(tmp_path, server={"streams": 1}))
        running(http.app.ledger, "b-1", "vm-1")
        token = http.token()
        app, client = http.listener.app, stack.enter_context(closing(HttpClient(http.url, token)))
        principal = Principal.of(http.app.ledger.tokens.of_secret(token))
        streams = app.state.stream_slots
        for slots, most in ((app.state.upload_slots, 4), (streams, 1)):
            for _ in range(most):
                slots.take(principal)
        monkeypatch.setattr(CallerSlots, "take", take)
        assert client.put("/sources", lambda: iter([b"x"]))["digest"].startswith("sha256:")
        with client.stream("/builds/b-1/chunks", "application/octet-stream") as found:
            assert list(found) == []
        of_token = "of this token are under way"
        assert refused == [f"4 uploads {of_token}", f"1 streams {of_token}"]
        monkeypatch.setattr(CallerSlots, "take", taken)
        monkeypatch.setattr(http_client, "PLACE", 0.1)
        wait_until(lambda: not streams._busy, what="the server to end the stream")
        streams.take(principal)
        with pytest.raises(ServerUnreachable, match="1 streams of this token"):
            client.stream("/builds/b-1/chunks", "application/octet-stream").__enter__()


@pytest.mark.parametrize(
    "more",
    [
        {"steps": ["x"] * 300_000},
        {"steps": [{"no": 1}] * 100_000},
        {f"k{n}": 1 for n in range(100_000)},
        {"artifacts": ["x"] * 300_000},
    ],
    ids=["steps", "bad steps", "keys", "artifacts"],
)
def test_a_large_body_holds_up_nobody(
    http: Service, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    client, other = http.client(), http.client("")
    decode, meanwhile = request_bodies._decoded, list[int]()

    def decoded(*args: Any) -> Any:
        """What decodes a body goes on when somebody else was answered."""
        meanwhile.append(other.get("/healthz").status_code)
        return decode(*args)

    monkeypatch.setattr(request_bodies, "_decoded", decoded)
    answer = client.post(f"{API}/builds", content=json.dumps({"steps": ["say x"], **more}))
    assert meanwhile == [200]
    assert (answer.status_code, len(answer.content) < 100_000) == (422, True)
    assert answer.json()["fix"]


@pytest.mark.parametrize(
    ("path", "lengths", "status"),
    [
        ("token", "", b"401"),  # of who has shown nothing, all of whom have one actor
        ("builds", "Content-Length: 5\r\n", b"413"),
    ],
)
def test_a_body_in_chunks_is_small_or_has_a_turn(
    http: Service, monkeypatch: pytest.MonkeyPatch, path: str, lengths: str, status: bytes
) -> None:
    def no_turn(*_: Any) -> Any:
        raise AssertionError("it had a turn")

    monkeypatch.setattr(request_bodies.LargeBodies, "turn", no_turn)
    size = 16 if path == "token" else 2 * request_bodies.SMALL
    body = json.dumps({"jwt": "x"} if path == "token" else {"steps": ["x" * size]}).encode()
    head = (
        f"POST {API}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {http.token()}\r\n"
        f"{lengths}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
    )
    with socket.create_connection(("127.0.0.1", http.listener.port)) as connection:
        connection.sendall(head.encode() + body + b"\r\n0\r\n\r\n")
        assert connection.recv(99).split()[1] == status


@pytest.mark.parametrize("path", [f"{API}/audit", "/audit", f"{API}/instances?cloud=true"])
def test_a_cloud_that_hangs_holds_up_no_other_request(
    http: Service, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    token, go, calls = http.token(), threading.Event(), list[int]()

    def hang() -> tuple[dict[str, Any], dict[str, Any]]:
        calls.append(1)
        go.wait(20)
        return {}, {}

    monkeypatch.setattr(http.app.providers, "opened", hang)
    answers: list[int] = []

    def ask() -> None:
        answers.append(http.client(token, timeout=30).get(path).status_code)

    asking = [threading.Thread(target=ask) for _ in range(60)]
    for thread in asking:
        thread.start()
    try:
        wait_until(lambda: len(answers) == 58)
        assert http.client(timeout=5).get(f"{API}/builds").status_code == 200
    finally:
        go.set()
        for thread in asking:
            thread.join()
    assert (sorted(answers), len(calls)) == ([200] * 2 + [429] * 58, 2)


def test_who_sees_vms_waits_for_no_others_look(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(http.app.ledger, "b-1", "vm-1")
    go, calls = threading.Event(), list[int]()

    def hang() -> tuple[dict[str, Any], dict[str, Any]]:
        calls.append(1)
        go.wait(20)
        return {}, {}

    monkeypatch.setattr(http.app.providers, "opened", hang)
    first = threading.Thread(target=lambda: http.client().get("/vms"))
    first.start()
    try:
        wait_until(lambda: bool(calls))
        page = http.client(timeout=5).get("/vms").text
    finally:
        go.set()
        first.join()
    assert "The first look at the clouds is under way." in page
    assert "vm-1" in page
    assert "not seen" not in page


# --- slow callers ---------------------------------------------------------------------------------


def long_log(http: Service, build: str = "b-long") -> None:
    """A running build whose log has 16 MiB."""
    running(http.app.ledger, build, "vm-long")
    data, offset = b"x" * 99 + b"\n", 0
    for n in range(64):
        offset += (256 << 10) // 100 * 100
        piece = data * ((256 << 10) // 100)
        http.app.ledger.logs.append(build, 1, 1, offset=offset, data=piece, now=105.0 + n)


def slow_reader(http: Service, text: str, token: str = "") -> socket.socket:
    """A connection that has sent this, and takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", http.listener.port))
    shown = f"Authorization: Bearer {token}\r\n" if token else ""
    connection.sendall(text.replace("\n", "\r\n").format(shown=shown).encode())
    return connection


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_who_takes_nothing_holds_little_and_is_given_up(
    http: Service, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.5)
    long_log(http)
    logs, read = http.app.ledger.logs, Counter[str]()
    original = logs.read

    def counted(*words: Any, **options: Any) -> list[Chunk]:
        found = original(*words, **options)
        read["bytes"] += sum(len(chunk.data) for chunk in found)
        return found

    monkeypatch.setattr(logs, "read", counted)
    head = f"GET {API}/builds/b-long/logs HTTP/1.1\nHost: x\n{{shown}}Accept: {accept}\n\n"
    slots = http.listener.app.state.stream_slots
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(closing(slow_reader(http, head, http.token())))
        wait_until(lambda: len(slots._busy) == 4)
        wait_until(lambda: not slots._busy)
        assert read["bytes"] < 4 * (8 << 20), "what the kernel's own buffers take, and little more"


def closed(connection: socket.socket) -> bool:
    """True once the server has hung up."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


WHOLE = "GET /healthz HTTP/1.1\nHost: x\n\n"


@pytest.mark.parametrize(("first", "then"), [("", ""), ("", WHOLE[:-9]), (WHOLE, WHOLE[:-9])])
def test_a_head_that_does_not_come_is_not_waited_for(
    http: Service, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.3)
    with closing(slow_reader(http, first)) as connection:
        answer = b""
        while first and not answer.endswith(b"ok\n"):
            answer += connection.recv(4096)
        connection.sendall(then.replace("\n", "\r\n").encode())
        assert closed(connection)


def test_a_head_without_end_is_not_kept(http: Service) -> None:
    with closing(slow_reader(http, "GET /healthz HTTP/1.1\n")) as connection:
        try:
            for n in range(4096):
                connection.sendall(b"X-%d: %s\r\n" % (n, b"x" * 1000))
        except OSError:
            pass
        assert closed(connection)


def test_no_more_connections_than_files_allow(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 3)
    with ExitStack() as stack:
        for _ in range(3):
            held = stack.enter_context(closing(slow_reader(http, WHOLE)))
            assert held.recv(15) == b"HTTP/1.1 200 OK"
        with closing(slow_reader(http, "")) as connection:
            assert closed(connection)
    wait_until(lambda: _answers(http))


def _answers(http: Service) -> bool:
    try:
        return httpx2.get(f"{http.url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


# --- answers --------------------------------------------------------------------------------------


def test_a_page_of_large_builds_has_few_of_them(http: Service) -> None:
    client = http.client()
    step = "say " + "x" * 700_000
    ids = [only(client.post(f"{API}/builds", json={"steps": [step]}))["id"] for _ in range(3)]
    pages, after = [], None
    while after is not None or not pages:
        parameters = {"limit": 1000} | ({"after": after} if after else {})
        answer = client.get(f"{API}/builds", params=parameters)
        assert len(answer.content) < 2_000_000
        pages.append([item["id"] for item in answer.json()["items"]])
        after = answer.json().get("next")
    assert pages == [[build] for build in reversed(ids)]
    page = client.get("/", headers={"Accept": "text/html"}).text
    assert (ids[2] in page, ids[1] in page) == (True, False)
    assert f"after={ids[2]}" in page


def test_an_unreadable_build_is_no_end_of_the_list(http: Service) -> None:
    client = http.client()
    ids = [only(client.post(f"{API}/builds", json={"steps": ["say x"]}))["id"] for _ in range(3)]
    with closing(sqlite3.connect(http.app.paths.data / "ledger.db")) as raw, raw:
        raw.execute("UPDATE builds SET spec = '{' WHERE id = ?", (ids[1],))
    first = client.get(f"{API}/builds", params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == [ids[2]]
    rest = client.get(f"{API}/builds", params={"after": first["next"]}).json()
    assert [item["id"] for item in rest["items"]] == [ids[0]]


def test_a_wait_for_chunks_counts_as_a_stream(tmp_path: Path) -> None:
    with service(tmp_path, server={"streams": 1}) as http:
        running(http.app.ledger, "b-1", "vm-1")
        client = http.client(http.token())
        path = f"{API}/builds/b-1/chunks"
        with client.stream("GET", f"{API}/builds/b-1/logs", headers=SSE) as answer:
            assert answer.status_code == 200
            assert client.get(path, params={"wait": True}).status_code == 429
        slots = http.listener.app.state.stream_slots
        wait_until(lambda: not slots._busy)
        assert client.get(path).status_code == 200
        assert not slots._busy


def test_chunks_as_json_are_few(http: Service) -> None:
    long_log(http)
    client = http.client()
    answer = client.get(f"{API}/builds/b-long/chunks")
    assert [item["seq"] for item in answer.json()["items"]] == list(range(1, 9))
    assert len(answer.content) < 4 << 20


def test_an_unreadable_vm_is_no_end_of_the_list(http: Service) -> None:
    for n in range(3):
        running(http.app.ledger, f"b-{n}", f"vm-{n}")
    with closing(sqlite3.connect(http.app.paths.data / "ledger.db")) as raw, raw:
        raw.execute("UPDATE instances SET offer = '{' WHERE id = 'vm-1'")
    client = http.client()
    first = client.get(f"{API}/instances", params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ["vm-2"]
    rest = client.get(f"{API}/instances", params={"after": first["next"]}).json()
    assert [item["id"] for item in rest["items"]] == ["vm-0"]


#: What costs the server much: lists, and their pages.
LISTS = (
    *(f"{API}/{name}" for name in ("builds", "sandboxes", "instances", "costs", "caches")),
    *("/", "/overview", "/vms", "/costs", "/caches"),
)


def test_lists_of_readers_take_turns(http: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do their pages; who may not read takes none."""
    turns, taken = http.listener.app.state.tenant_turns, list[str]()
    turn = turns.turn

    def counted(tenant: str, gone: Any) -> Any:
        taken.append(tenant)
        return turn(tenant, gone)

    monkeypatch.setattr(turns, "turn", counted)
    reader, scraper = http.tenant(team="a"), http.client(http.token({TokenScope.METRICS}))
    for path in LISTS:
        assert reader.get(path).status_code == 200, path
        assert taken == ['{"team": "a"}'], path
        taken.clear()
        assert scraper.get(path).status_code == 403, path
        assert taken == [], path


def test_a_tenants_lists_wait_for_each_other(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections of one tenant that asked for lists without end made those of another slower, by
    as many as there were."""
    page, may_end = http.app.ledger.builds.page, threading.Semaphore(0)
    begun, lock = list[str](), threading.Lock()

    def slow(choice: Any, *words: Any) -> Any:
        with lock:
            begun.append(str(choice.own))
        assert may_end.acquire(timeout=30)
        return page(choice, *words)

    token, other = http.token(TENANT, labels={"team": "a"}), http.tenant(repository="b/app")
    other.get(
        f"{API}/builds"
    )  # the schema by which its client checks answers is made by one thread
    monkeypatch.setattr(http.app.ledger.builds, "page", slow)
    monkeypatch.setattr(tenant_turns, "BESIDE", 600.0)
    statuses = list[int]()

    def ask(client: httpx2.Client) -> None:
        statuses.append(client.get(f"{API}/builds?result=failure").status_code)

    def lines() -> dict[str, int]:
        turns = http.listener.app.state.tenant_turns
        return {tenant: len(line) for tenant, line in list(turns._lines.items())}

    flood = [threading.Thread(target=ask, args=(http.client(token),)) for _ in range(9)]
    for thread in flood:
        thread.start()
    mine = '{"team": "a"}'
    wait_until(lambda: (len(begun), lines()) == (1, {mine: 8}))
    with socket.create_connection(("127.0.0.1", http.listener.port)) as leaver:
        head = f"GET {API}/builds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        leaver.sendall(head.encode())
        wait_until(lambda: lines() == {mine: 9})
    wait_until(lambda: lines() == {mine: 8})
    request = threading.Thread(target=ask, args=(other,))
    request.start()
    wait_until(lambda: len(begun) == 2)
    assert begun[-1] == "{'repository': 'b/app'}", "it waits for none of the others"
    assert lines() == {mine: 8}
    may_end.release(100)
    for thread in (*flood, request):
        thread.join(30)
    assert statuses == [200] * 10
    assert lines() == {}
