"""The tools of `vmrunner mcp`, called by the SDK's own client: in memory, and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client

import vmrunner
from tests.integration.test_http_sandboxes import Pretended
from tests.support.fake_runner import app
from tests.support.scripted_app import CountedApp, Scripted, wait_until
from tests.support.sshd import wait_for
from vmrunner.api.local_service import LocalService
from vmrunner.errors import NotFound
from vmrunner.integrations.mcp import http, server
from vmrunner.integrations.mcp.sessions import LONGEST_TTL, SessionSandboxes
from vmrunner.model import AllowList, CommandEnd, CommandOrder, Network, Reason
from vmrunner.server import connections

pytestmark = pytest.mark.timeout(60)
__all__ = ["app"]
TOKEN = "a-token-of-enough-characters"
VMRUNNER = Path(sys.executable).with_name("vmrunner")
CALLS = [("sandbox_create", {}), ("run_build", {"command": "sleep 600"})]
SOME = AllowList(("pypi.org",))
STARTS = pytest.mark.parametrize(("tool", "arguments"), CALLS)


class Slow(Pretended):
    """Its commands end while `runs` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = threading.Event()
        self.runs.set()

    def run(self, order: CommandOrder, on_output: Any) -> CommandEnd:
        end = super().run(order, on_output)
        self.runs.wait(30)
        return end


@pytest.fixture
def pretended() -> Slow:
    return Slow()


@pytest.fixture
def runner(
    app: CountedApp, monkeypatch: pytest.MonkeyPatch, pretended: Slow
) -> Iterator[vmrunner.Runner]:
    monkeypatch.setattr(LocalService, "sandbox", lambda *_: pretended)
    with vmrunner.Runner(app=app, leave=server.leave_if_cancelled) as runner:
        yield runner


@contextlib.asynccontextmanager
async def connected(runner: vmrunner.Runner) -> AsyncIterator[Client]:
    async with Client(server.make(runner, SessionSandboxes())) as client:
        yield client


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(name, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content or {}


async def refused(client: Client, name: str, **arguments: Any) -> str:
    answer = await client.call_tool(name, arguments)
    assert answer.is_error
    return " ".join(getattr(part, "text", "") for part in answer.content)


@pytest.mark.parametrize("tool", ["sandbox_create", "run_build"])
def test_no_tool_gives_more_network_than_allowed(
    runner: vmrunner.Runner, pretended: Slow, tool: str
) -> None:
    async def work() -> None:
        for most, network in (
            (Network.NONE, "open"),
            (Network.NONE, "allow=pypi.org"),
            (SOME, "open"),
        ):
            made = server.make(runner, SessionSandboxes(), network_at_most=most)
            async with Client(made) as client:
                command = {"command": "say x"} if tool == "run_build" else {}
                refusal = await refused(client, tool, network=network, **command)
                assert f"network: '{network}' is above" in refusal
        assert runner.list() == []

    anyio.run(work)


def test_an_agent_uses_a_sandbox(runner: vmrunner.Runner) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {
                "sandbox_create", "sandbox_run", "sandbox_read_file", "sandbox_write_file",
                "sandbox_list_files", "sandbox_kill", "run_build", "sandbox_list",
                "sandbox_extend", "sandbox_start", "sandbox_output", "sandbox_stop",
            }  # fmt: skip
            made = await call(client, "sandbox_create")
            assert (made["network"], made["ttl_seconds"]) == ("none", 900)
            name = made["sandbox"]
            done = await call(client, "sandbox_run", sandbox=name, command="echo hello")
            assert (done["stdout"], done["exit_code"]) == ("echo hello", 3)
            await call(client, "sandbox_write_file", sandbox=name, path="a", text="x")
            read = await call(client, "sandbox_read_file", sandbox=name, path="a")
            assert read["text"] == "x"
            listed = await call(client, "sandbox_list_files", sandbox=name)
            assert [entry["name"] for entry in listed["entries"]] == ["a"]
            await call(client, "sandbox_kill", sandbox=name)
            assert "no sandbox" in await refused(client, "sandbox_kill", sandbox=name)
            build = await call(client, "run_build", command="say hi")
            assert (build["result"], build["log"]) == ("success", "hi")

    anyio.run(work)


def test_what_is_left_ends_with_the_session(runner: vmrunner.Runner) -> None:
    names: list[str] = []

    async def work() -> None:
        async with connected(runner) as client:
            names.append((await call(client, "sandbox_create"))["sandbox"])
            row = runner.get(names[0]).row
            assert row.submitter is not None  # it ends with this process too

    anyio.run(work)
    assert runner.wait(names[0], timeout=20).reason is Reason.USER


def test_a_file_is_read_up_to_a_bound(runner: vmrunner.Runner, pretended: Slow) -> None:
    """However large it says that it is: what a link leads to says nothing of itself."""

    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            pretended.files["/work/a"] = bytes(server.FILE + 1)
            refusal = await refused(client, "sandbox_read_file", sandbox=name, path="a")
            assert "more than 1.0 MiB" in refusal
            assert "head, tail, grep" in refusal

    anyio.run(work)


def test_a_sandbox_that_is_over_is_forgotten() -> None:
    """A process that serves for months has made many."""
    now, closed = 0.0, []
    sandboxes = SessionSandboxes(lambda: now)

    def sandbox(name: str) -> Any:
        return SimpleNamespace(id=name, close=lambda: closed.append(name))

    sandboxes.add("s", sandbox("b-1"))
    now = LONGEST_TTL
    sandboxes.add("s", sandbox("b-2"))
    assert sandboxes.get("s", "b-1").id == "b-1"
    now = 2 * LONGEST_TTL
    sandboxes.add("s", sandbox("b-3"))
    with pytest.raises(NotFound):
        sandboxes.get("s", "b-1")
    assert (sandboxes.get("s", "b-2").id, closed) == ("b-2", ["b-1"])


def test_long_answers_are_cut_with_a_note(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TEXT", 8)

    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            done = await call(client, "sandbox_run", sandbox=name, command="0123456789abcdef")
            assert done["stdout"] == "89abcdef"
            assert done["note"] == "stdout: the first 8 characters were left out."
            build = await call(client, "run_build", command="say 0123456789abcdef\nsay x")
            assert (build["log"], build["note"][:29]) == (
                "abcdef\nx",
                "log: the first 10 characters ",
            )

    anyio.run(work)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """VMs become ready once it is set."""
    ready = threading.Event()
    run = Scripted.run

    def late(self: Scripted) -> Any:
        while not (ready.is_set() or self._stopped.wait(0.02)):
            pass
        return run(self)

    monkeypatch.setattr(Scripted, "run", late)
    return ready


@STARTS
def test_a_call_that_is_cancelled_leaves_no_vm(
    runner: vmrunner.Runner, slow: threading.Event, tool: str, arguments: dict[str, Any]
) -> None:
    """What it started has an id that nobody was told."""
    if tool == "run_build":
        slow.set()

    async def work() -> None:
        async with connected(runner) as client, anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, tool, arguments)
            while not runner.list(active=True):
                await anyio.sleep(0.02)
            calls.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.move_on_after(30):
                while runner.list(active=True):
                    await anyio.sleep(0.02)
            vms.extend(build.id for build in runner.list(active=True))
            for name in vms:
                runner.cancel(name)

    vms: list[str] = []
    anyio.run(work)
    assert vms == []


@STARTS
def test_a_call_cancelled_before_any_engine_leaves_no_build(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: dict[str, Any]
) -> None:
    """Nobody served it yet: it would be queued for ever."""
    enter, queued = runner.enter, anyio.Event()

    def enter_and_be_cancelled(*words: Any, **options: Any) -> Any:
        entered = enter(*words, **options)
        anyio.from_thread.run_sync(queued.set)
        with pytest.raises(asyncio.CancelledError):
            wait_until(anyio.from_thread.check_cancelled)
        return entered

    async def work() -> None:
        async with connected(runner) as client, anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, tool, arguments)
            await queued.wait()
            calls.cancel_scope.cancel()

    monkeypatch.setattr(runner, "enter", enter_and_be_cancelled)
    anyio.run(work)
    wait_until(lambda: not runner.list(active=True), what="the build to end")


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("sandbox_create", {"ttl_seconds": 901}, "ttl_seconds"),
        ("sandbox_create", {"network": "everything"}, "network"),
        ("run_build", {"command": "true", "timeout_seconds": 10**6}, "timeout_seconds"),
        ("run_build", {"command": ""}, "command"),
        ("sandbox_run", {"sandbox": "b-1", "command": "true"}, "no sandbox"),
        ("sandbox_run", {"command": "true"}, "sandbox"),
    ],
)
def test_bad_calls_are_refused(
    runner: vmrunner.Runner, name: str, arguments: dict[str, Any], why: str
) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            assert why in await refused(client, name, **arguments)

    anyio.run(work)
    assert runner.list() == []


@pytest.fixture
def served(runner: vmrunner.Runner) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = server.make(runner, SessionSandboxes())
    uvicorned = uvicorn.Server(http.configuration(made, TOKEN, "127.0.0.1", port))
    thread = threading.Thread(target=uvicorned.run, daemon=True)
    thread.start()
    wait_for(lambda: uvicorned.started)
    yield f"http://127.0.0.1:{port}/mcp"
    uvicorned.should_exit = True
    thread.join(timeout=20)


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def test_over_http_a_token_is_needed_and_browsers_are_refused(served: str) -> None:
    right = {**ACCEPT, "Authorization": f"Bearer {TOKEN}"}
    assert httpx2.post(served, json=HELLO, headers=ACCEPT).status_code == 401
    wrong = {**ACCEPT, "Authorization": "Bearer a-token-of-enough-characterz"}
    assert httpx2.post(served, json=HELLO, headers=wrong).status_code == 401
    for bad in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert httpx2.post(served, json=HELLO, headers={**right, **bad}).status_code in (403, 421)
    assert httpx2.post(served, json=HELLO, headers=right).status_code == 200


def test_who_says_nothing_holds_no_connection(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.1)
    with socket.create_connection(("127.0.0.1", httpx2.URL(served).port or 0), 20) as silent:
        assert silent.recv(1) == b""


class Session:
    """One session over HTTP, as a client that keeps one speaks."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(headers={**ACCEPT, "Authorization": f"Bearer {TOKEN}"})
        self._url = url
        answer = self._client.post(url, json=HELLO)
        self._client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        self._client.headers["mcp-protocol-version"] = "2025-06-18"
        self._client.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, name: str, **arguments: Any) -> str:
        body = {
            "jsonrpc": "2.0", "id": time.monotonic_ns(), "method": "tools/call",
            "params": {"name": name, "arguments": arguments},
        }  # fmt: skip
        return self._client.post(self._url, json=body, timeout=30).text

    def end(self) -> None:
        assert self._client.delete(self._url).status_code in (200, 204)
        self._client.close()


def test_a_session_reaches_its_own_and_takes_them_along(
    served: str, runner: vmrunner.Runner
) -> None:
    first, second = Session(served), Session(served)
    first.call("sandbox_create")
    (build,) = runner.list()
    assert "echo hi" in first.call("sandbox_run", sandbox=build.id, command="echo hi")
    assert "has no sandbox" in second.call("sandbox_run", sandbox=build.id, command="true")
    second.end()
    assert runner.get(build.id).state is vmrunner.BuildState.RUNNING
    first.end()
    assert runner.wait(build.id, timeout=20).reason is Reason.USER


def test_a_session_ends_though_a_command_runs(
    served: str, runner: vmrunner.Runner, pretended: Slow
) -> None:
    """A client that leaves does not wait for what it began."""
    session = Session(served)
    session.call("sandbox_create")
    (build,) = runner.list()

    def work() -> None:
        with contextlib.suppress(httpx2.HTTPError):  # it is closed amid that
            session.call("sandbox_run", sandbox=build.id, command="sleep 600")

    pretended.runs.clear()
    threading.Thread(target=work, daemon=True).start()
    wait_for(lambda: pretended.orders)
    session.end()
    try:
        assert runner.wait(build.id, timeout=20).reason is Reason.USER
    finally:
        pretended.runs.set()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_foreign_client_lists_and_calls_the_tools(tmp_path: Path) -> None:
    """By the inspector of npm, which shares no code with the SDK for Python."""
    inspector = ["npx", "--yes", "@modelcontextprotocol/inspector@0.15", "--cli"]
    config = tmp_path / "config/vmrunner/config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    config.write_text('[providers.fake]\nkind = "fake"\n')
    env = os.environ | {
        f"XDG_{name}_HOME": str(tmp_path / name.lower()) for name in ("DATA", "CONFIG")
    }

    def ask(*words: str) -> dict[str, Any]:
        argv = [*inspector, str(VMRUNNER), "mcp", "--method", *words]
        done = subprocess.run(
            argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert {tool["name"] for tool in ask("tools/list")["tools"]} >= {"sandbox_create", "run_build"}
    called = ask(
        "tools/call", "--tool-name", "sandbox_run",
        "--tool-arg", "sandbox=b-1", "--tool-arg", "command=true",
    )  # fmt: skip
    assert called["isError"]
    assert "no sandbox 'b-1'" in called["content"][0]["text"]
