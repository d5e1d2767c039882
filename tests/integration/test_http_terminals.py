"""Terminals over a server: a WebSocket with nothing but its URL and a token."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CapacityLimiter
from starlette.routing import BaseRoute, WebSocketRoute
from websockets.exceptions import InvalidStatus

from tests.support.entered import ENTER, PROTOCOL, Entered, entered, send
from tests.support.http_service import ALL, OTHERS, TENANT
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Sshd, wait_for
from vmrunner.model import Network, TokenQuota, TokenScope
from vmrunner.server import entered_streams
from vmrunner.server.routes import terminals
from vmrunner.session.ssh.channel_io import ConnectionLost

pytestmark = pytest.mark.timeout(120)
SIZES = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done"


@pytest.fixture
def world(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entered]:
    with entered(tmp_path, sshd, monkeypatch) as found:
        yield found


def refused(world: Entered, path: str = "builds/b-1/terminal", **options: Any) -> dict[str, Any]:
    """The problem with which a WebSocket is refused before it is one."""
    with pytest.raises(InvalidStatus) as caught, world.socket(path, **options):
        pass
    response = caught.value.response
    assert response.body is not None
    found: dict[str, Any] = json.loads(response.body)
    assert found["status"] == response.status_code
    return found


def test_a_shell_of_a_build_comes_over_the_server(world: Entered) -> None:
    with world.terminal("sh", "-i", columns=101, rows=33) as terminal:
        terminal.type("PS1=; stty size; echo $((40 + 2))\n")
        terminal.shows(b"33 101\r\n42\r\n")
        send(terminal.socket, type="resize", columns=40, rows=120)
        terminal.type("stty size\n")
        terminal.shows(b"120 40\r\n")
        terminal.type("sh -c 'echo be''gun; exec sleep 600'\n")
        terminal.shows(b"begun\r\n")
        terminal.type(b"\x03")
        terminal.type("exit 7\n")
        assert terminal.end() == {"type": "exit", "code": 7}
    assert terminal.frames[0] == {"type": "started"}
    assert terminal.code == 1000
    assert terminal.socket.subprotocol == PROTOCOL


def test_a_container_is_entered_with_its_environment(world: Entered) -> None:
    line = 'pwd; echo $OF_THE_BUILD "$A"; exit 5'
    with world.terminal("sh", "-c", line, container=True, env={"A": "it's $1"}) as terminal:
        assert terminal.end()["code"] == 5
    assert terminal.shown.splitlines()[1] == b"yes it's $1"
    with world.terminal("absent-program", container=True) as terminal:
        assert (terminal.end()["status"], terminal.code) == (404, 4410)
    assert "absent-program: not found" in terminal.frames[-1]["detail"]


def test_without_a_terminal_every_byte_comes_through(world: Entered) -> None:
    evil = bytes(range(256)) * 3000
    line = "cat; echo apart >&2; exit 9"
    with world.terminal("sh", "-c", line, tty=False) as terminal:
        for start in range(0, len(evil), 1 << 16):
            terminal.type(evil[start : start + (1 << 16)])
        send(terminal.socket, type="eof")
        assert terminal.end()["code"] == 9
    assert terminal.shown == evil
    apart = [frame["data"] for frame in terminal.frames if frame["type"] == "stderr"]
    assert b"".join(map(base64.b64decode, apart)) == b"apart\n"


def test_a_signal_reaches_the_command(world: Entered) -> None:
    line = "trap 'echo hup; exit 3' HUP; echo ready; while :; do sleep 0.02; done"
    with world.terminal("sh", "-c", line, tty=False) as terminal:
        terminal.shows(b"ready\n")
        send(terminal.socket, type="signal", signal="HUP")
        assert terminal.end()["code"] == 3
    assert b"hup\n" in terminal.shown


def test_a_secret_is_masked_at_a_terminal(world: Entered) -> None:
    build = world.running("b-2")
    world.ledger.builds.secrets = lambda _: {"TOKEN": b"s3cr3t-value"}  # type: ignore[method-assign]
    path = f"builds/{build}/terminal"
    line = "printf 's3cr'; sleep 0.05; printf '3t-value|'; printf 's3cr'; read x; echo \"<$x>\""
    with world.terminal("sh", "-c", line, path=path) as terminal:
        terminal.shows(b"***|s3cr")  # what may become one is held back for a moment alone
        terminal.type("s3cr3t-value\n")
        assert terminal.end()["code"] == 0
    assert b"s3cr3t-value" not in terminal.shown
    assert b"<***>" in terminal.shown


def test_an_entry_is_an_action_and_an_event(world: Entered) -> None:
    token = world.token()
    with world.terminal("echo", "12345", token=token) as terminal:
        terminal.end()
    wait_for(lambda: len(world.ledger.actions.latest()) == 2)
    end, begin = world.ledger.actions.latest()
    (actor,) = {t.actor for t in world.ledger.tokens.list()}
    assert (begin.actor, begin.verb, begin.subject) == (actor, "enter-terminal", "b-1")
    assert begin.detail == "the VM, from 127.0.0.1"
    assert (end.verb, end.subject) == ("leave-terminal", "b-1")
    assert "7 B out, 0 B in" in end.detail
    (event,) = [e for e in world.ledger.events.list("b-1") if e.kind == "entered"]
    assert event.data == {"by": actor, "what": "terminal"}


@pytest.mark.parametrize("scopes", [ALL - ENTER, TENANT, frozenset({TokenScope.ADMIN})])
def test_no_other_scope_enters(world: Entered, scopes: frozenset[TokenScope]) -> None:
    problem = refused(world, token=world.http.token(scopes))
    assert (problem["status"], problem["detail"]) == (403, "the token has no scope enter")


@pytest.mark.parametrize("theirs", OTHERS)
def test_another_tenants_vm_does_not_exist(world: Entered, theirs: dict[str, str]) -> None:
    other = world.http.token(ENTER, labels=theirs)
    world.running("b-2", tenant=json.dumps(theirs), labels={**theirs, "team": "a"})
    for path in ("builds/b-1/terminal", "sandboxes/b-1/terminal"):
        assert refused(world, path, token=other)["status"] == 404
    assert refused(world, "builds/b-2/terminal")["status"] == 404, "it only wears the label"
    assert world.ledger.actions.latest() == []


def test_without_a_token_nobody_enters(world: Entered) -> None:
    for shown in ("", "vmr_wrong", "vmr_" + "x" * 4000):
        assert refused(world, token=shown)["status"] == 401


def test_a_build_without_a_vm_says_so(world: Entered) -> None:
    world.finish()
    assert refused(world)["detail"] == "b-1 has no VM: it is finished"
    assert refused(world, "sandboxes/b-1/terminal")["detail"] == "b-1 is a build, no sandbox"


def test_a_held_builds_container_is_entered(world: Entered) -> None:
    world.hold()
    with world.terminal("echo", "in", container=True) as terminal:
        assert terminal.end()["code"] == 0
    assert terminal.shown == b"in\r\n"


@pytest.mark.parametrize("quota", [{"docker": False}, {"network": "none"}])
def test_a_bound_token_is_no_root_of_a_vm(world: Entered, quota: dict[str, Any]) -> None:
    token = world.token(quota=TokenQuota.of(quota))
    where = {
        "token": token,
        "path": f"builds/{world.running('b-3', network=Network.NONE)}/terminal",
    }
    with world.terminal("id", **where) as terminal:
        assert terminal.end()["status"] == 403
    with world.terminal("echo", "in", container=True, **where) as terminal:
        assert terminal.end()["code"] == 0


@pytest.mark.parametrize(
    ("quota", "build", "field"),
    [
        ({"network": "none"}, {}, "network"),
        ({"docker": False}, {"docker": True}, "docker"),
        ({"docker": False}, {"privileged": True}, "privileged"),
    ],
)
@pytest.mark.parametrize(
    "path",
    ["builds/ID/terminal", "sandboxes/ID/terminal", "builds/ID/ports/80", "builds/ID/ports/80/"],
)
def test_nobody_enters_what_he_could_not_submit(
    world: Entered, quota: dict[str, Any], build: dict[str, Any], field: str, path: str
) -> None:
    """Another token of the same tenant was given more: whoever is inside has it too."""
    name = world.running("b-3", sandbox_ttl=600.0, steps=(), **build)
    token = world.token(quota=TokenQuota.of(quota))
    problem = refused(world, path.replace("ID", name), token=token)
    assert problem["status"] == 403
    assert f"b-3 has more than the token may have: {field}" in problem["detail"]


@pytest.mark.parametrize("limits", [{"docker": False}, {"network": "none"}])
def test_a_ceiling_for_all_lets_nobody_be_root(
    tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    with entered(tmp_path, sshd, monkeypatch, limits=limits) as world:
        with world.terminal("id") as terminal:
            assert terminal.end()["status"] == 403
        with world.terminal("echo", "in", container=True) as terminal:
            assert terminal.end()["code"] == 0


def test_a_quota_that_binds_nothing_lets_be_root(world: Entered) -> None:
    token = world.token(quota=TokenQuota.of({"docker": True, "network": "open"}))
    with world.terminal("echo", "in", token=token) as terminal:
        assert terminal.end()["code"] == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1"])
def test_a_cookie_opens_it_for_our_pages_alone(world: Entered, origin: str) -> None:
    token = world.token(scopes=ENTER | {TokenScope.READ})
    answer = world.http.client("").post("/login", data={"token": token})
    cookie = answer.headers["set-cookie"].split(";")[0]
    headers = {"Cookie": cookie} | ({"Origin": origin} if origin else {})
    problem = refused(world, token="", additional_headers=headers)
    assert (problem["status"], problem["error"]) == (403, None)
    ours = {"Cookie": cookie, "Origin": world.http.url}
    with world.terminal("echo", "in", token="", additional_headers=ours) as terminal:
        assert terminal.end()["code"] == 0


def test_behind_tls_a_page_without_it_opens_none(
    tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entered(tmp_path, sshd, monkeypatch, server={"url": "https://b.example.org"}) as world:
        token = world.token(scopes=ENTER | {TokenScope.READ})
        answer = world.http.client("").post("/login", data={"token": token})
        host = world.http.url.partition("://")[2]
        shown = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
        plain = shown | {"Origin": f"http://{host}"}
        assert refused(world, token="", additional_headers=plain)["status"] == 403
        secure = shown | {"Origin": f"https://{host}"}
        with world.terminal("echo", "in", token="", additional_headers=secure) as terminal:
            assert terminal.end()["code"] == 0


@pytest.mark.parametrize("end", ["revoked", "expired", "finished"])
def test_a_terminal_ends_with_its_token_and_its_build(
    world: Entered, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(entered_streams, "LOOK", 0.05)
    monkeypatch.setattr(entered_streams, "RECHECK", 0.1)
    hour = time.time() + 3600
    token = world.token(expires_at=hour)
    with world.terminal("sleep", "600", token=token) as terminal:
        terminal.until(lambda: terminal.frames)
        if end == "revoked":
            world.ledger.tokens.revoke(world.ledger.tokens.list()[-1].id, hour - 1)
        elif end == "expired":
            world.http.clock[:] = [hour + 1]
        else:
            world.finish()
        terminal.end()
    code, reason = (4410, "finished") if end == "finished" else (4401, "revoked")
    assert terminal.code == code
    assert reason in terminal.reason


def test_an_idle_terminal_is_closed(
    tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        entered(tmp_path, sshd, monkeypatch, server={"idle_entry": "300ms"}) as world,
        world.terminal("sleep", "600") as terminal,
    ):
        send(terminal.socket, type="keep-alive")
        terminal.end()
    assert terminal.code == 4408


def test_a_vm_that_falls_silent_is_noticed(
    world: Entered, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entered_streams, "LOOK", 0.1)
    monkeypatch.setattr("vmrunner.session.ssh.channel_io.ASK_AFTER", 0.2)
    monkeypatch.setattr("vmrunner.session.ssh.channel_io.DEAD_AFTER", 0.4)
    with world.terminal("sleep", "600") as terminal:
        terminal.until(lambda: terminal.frames)
        with sshd.frozen():
            assert "broke off" in terminal.end()["detail"]
    assert terminal.code == 4410


def test_a_token_has_so_many_terminals_at_once(
    tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entered(tmp_path, sshd, monkeypatch, server={"terminals": 1}) as world:
        token = world.token()
        with world.terminal("sleep", "600", token=token) as terminal:
            terminal.until(lambda: terminal.frames)
            assert refused(world, token=token)["status"] == 429
        wait_for(lambda: not world.http.listener.app.state.terminal_slots._busy)
        with world.terminal("echo", "in", token=token) as terminal:
            assert terminal.end()["code"] == 0


def test_what_is_no_websocket_is_told_so(world: Entered) -> None:
    client = world.http.client(world.token())
    world.running("b-2", sandbox_ttl=60.0)
    world.running("b-3", tenant='{"team": "b"}', labels={"team": "b"})
    for way in ("terminal", "ports/80"):
        for path in (f"builds/b-1/{way}", f"sandboxes/b-2/{way}"):
            answer = client.get(f"/api/v1/{path}")
            assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        for path, status in (
            (f"builds/b-9/{way}", 404), (f"sandboxes/b-9/{way}", 404),
            (f"sandboxes/b-1/{way}", 409), (f"builds/b-3/{way}", 404),
        ):  # fmt: skip
            assert client.get(f"/api/v1/{path}").status_code == status, path
        reader = world.http.client(world.token(scopes=frozenset({TokenScope.READ})))
        assert reader.get(f"/api/v1/builds/b-1/{way}").status_code == 403
        assert world.http.client("").get(f"/api/v1/builds/b-1/{way}").status_code == 401
    assert refused(world, subprotocols=["other"])["status"] == 400


def test_who_leaves_is_let_go(world: Entered) -> None:
    with world.terminal("sh", "-c", "echo $$; exec sleep 600") as terminal:
        terminal.shows(b"\n")
        pid = int(terminal.shown.split()[0])
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    slots = world.http.listener.app.state.terminal_slots
    wait_for(lambda: not slots._busy)
    assert terminals.PROTOCOL == PROTOCOL


def test_a_size_that_comes_too_late_hides_no_exit_code() -> None:
    class Ended:
        exit_code: int | None = 7

        def resize(self, columns: int, rows: int) -> None:
            raise ConnectionLost("Channel is not open")

    frame = {"type": "resize", "columns": 80, "rows": 24}
    command: Any = Ended()
    anyio.run(terminals._control, command, frame, CapacityLimiter(1))
    command.exit_code = None
    with pytest.raises(ConnectionLost):
        anyio.run(terminals._control, command, frame, CapacityLimiter(1))


def websockets(routes: list[BaseRoute], before: str = "") -> Iterator[str]:
    """Paths of all WebSockets of the application, of `b-1`."""
    for route in routes:
        nested = getattr(route, "original_router", None)
        if nested is not None:
            context = route.include_context  # type: ignore[attr-defined]
            yield from websockets(nested.routes, before + context.prefix)
        elif isinstance(route, WebSocketRoute):
            yield (before + route.path).format(build="b-1", sandbox="b-1", port=8000, path="x")


def test_every_websocket_is_closed_to_others(world: Entered) -> None:
    paths = [path.removeprefix("/api/v1/") for path in websockets(world.http.listener.app.routes)]
    assert {"builds/b-1/terminal", "sandboxes/b-1/terminal"} <= set(paths)
    other = world.http.token(ENTER, labels={"team": "b"})
    for path in paths:
        assert refused(world, path, token="")["status"] == 401, path
        assert refused(world, path, token=world.http.token(ALL - ENTER))["status"] == 403, path
        assert refused(world, path, token=other)["status"] == 404, path
