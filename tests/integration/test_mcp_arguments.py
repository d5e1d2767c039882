"""What an agent may say to tools, and the tools for what lasts."""

from __future__ import annotations

import base64
import threading
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import vmrunner
from tests.integration.test_mcp import Slow, call, connected, pretended, refused, runner
from tests.support.fake_runner import app
from vmrunner.integrations.mcp import background, server, sessions
from vmrunner.integrations.mcp.background import BackgroundCommand
from vmrunner.model import CommandEnd, StreamName

pytestmark = pytest.mark.timeout(60)
__all__ = ["app", "pretended", "runner"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("sandbox_create", {"ttl": "99h"}, "ttl: no such argument (did you mean 'ttl_seconds'?)"),
        ("sandbox_create", {"net": "open"}, "net: no such argument (did you mean 'network'?)"),
        ("sandbox_create", {"x": 1}, "x: no such argument (one of: container, network, ttl_sec"),
        ("sandbox_create", {"ttl_seconds": 901}, "ttl_seconds: 901: too high (at most 900"),
        ("sandbox_create", {"ttl_seconds": "soon"}, "ttl_seconds: 'soon': not a number"),
        ("sandbox_run", {"command": "true"}, "sandbox: missing"),
        ("sandbox_run", {"cmd": "true"}, "cmd: no such argument (did you mean 'command'?)"),
        ("sandbox_run", {"sandbox": "b", "command": ""}, "command: ''"),
        ("sandbox_write_file", {"sandbox": "b", "path": "a", "content": "x"}, "text: missing"),
    ],
)
def test_arguments_that_cannot_be_are_told(
    runner: vmrunner.Runner, name: str, arguments: dict[str, Any], words: str
) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            refusal = await refused(client, name, **arguments)
            assert words in refusal
            assert "pydantic" not in refusal
            assert "http" not in refusal

    anyio.run(work)
    assert runner.list() == []


def test_each_argument_is_described_and_bounded(runner: vmrunner.Runner) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            for tool in (await client.list_tools()).tools:
                schema = tool.input_schema
                assert schema["additionalProperties"] is False, tool.name
                for name, field in schema["properties"].items():
                    assert field.get("description"), (tool.name, name)
                    if field.get("type") == "number":
                        assert field["maximum"] <= 900, (tool.name, name)

    anyio.run(work)


def test_a_sandbox_is_listed_and_extended(
    runner: vmrunner.Runner,
) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            assert (await call(client, "sandbox_list"))["sandboxes"] == []
            name = (await call(client, "sandbox_create", ttl_seconds=300))["sandbox"]
            (listed,) = (await call(client, "sandbox_list"))["sandboxes"]
            assert listed["sandbox"] == name
            assert 200 < listed["seconds_left"] <= 300
            longer = await call(client, "sandbox_extend", sandbox=name, seconds=600)
            assert 800 < longer["seconds_left"] <= 900
            await call(client, "sandbox_kill", sandbox=name)
            assert (await call(client, "sandbox_list"))["sandboxes"] == []

    anyio.run(work)


def test_a_binary_file_goes_both_ways(runner: vmrunner.Runner, pretended: Slow) -> None:
    every = bytes(range(256))
    text = base64.b64encode(every).decode()

    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            values = {"sandbox": name, "path": "a", "encoding": "base64"}
            await call(client, "sandbox_write_file", **values, text=text)
            assert pretended.files["/work/a"] == every
            read = await call(client, "sandbox_read_file", **values)
            assert (read["text"], read["size"], read["encoding"]) == (text, 256, "base64")
            assert "it is not base64" in await refused(
                client, "sandbox_write_file", **values, text="%"
            )
            pretended.files["/work/a"] = bytes(server.BINARY + 1)
            assert "more than 256.0 KiB" in await refused(client, "sandbox_read_file", **values)

    anyio.run(work)


def test_a_command_runs_on_in_the_background(runner: vmrunner.Runner, pretended: Slow) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            pretended.runs.clear()
            values = {"sandbox": name}
            command = (await call(client, "sandbox_start", **values, command="serve"))["command"]
            values["command"] = command
            text = ""
            while text != "serve":
                news = await call(client, "sandbox_output", **values, wait_seconds=5)
                assert (news["running"], news["exit_code"]) == (True, None)
                text += news["stdout"]
            await call(client, "sandbox_stop", **values)
            assert pretended.signals == [(command, 9)]
            pretended.runs.set()
            while news["running"]:
                news = await call(client, "sandbox_output", **values, wait_seconds=5)
            assert (news["exit_code"], news["stdout"]) == (3, "")
            values["command"] = "c-other"
            assert "no command 'c-other'" in await refused(client, "sandbox_output", **values)

    anyio.run(work)


def test_what_nobody_asks_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "UNREAD_BYTES", 8)
    end = CommandEnd(exit_code=0, timed_out=False, seconds=1.0)

    def follow(_: Any, keep: Any) -> CommandEnd:
        for piece in (b"01234", b"56789abcdef"):
            keep(StreamName.STDOUT, piece)
        return end

    sandbox: Any = SimpleNamespace(start=lambda _: None, follow=follow)
    order: Any = SimpleNamespace(id="c-1")
    command = BackgroundCommand(sandbox, order)
    while not command.ended:
        command._news.acquire()
        command._news.release()
    assert command.take(0) == ("89abcdef", "", 8, end)
    assert command.take(0) == ("", "", 0, end)


def test_a_character_in_two_pieces_is_one() -> None:
    half, rest = threading.Event(), threading.Event()

    def follow(_: Any, keep: Any) -> CommandEnd:
        keep(StreamName.STDOUT, "ä€".encode()[:-1])
        half.set()
        assert rest.wait(20)
        keep(StreamName.STDOUT, "€".encode()[-1:] + b"\xe2")
        return CommandEnd(exit_code=0, timed_out=False, seconds=1.0)

    sandbox: Any = SimpleNamespace(start=lambda _: None, follow=follow)
    order: Any = SimpleNamespace(id="c-1")
    command = BackgroundCommand(sandbox, order)
    assert half.wait(20)
    assert command.take(20).stdout == "ä"
    rest.set()
    text = ""
    while (news := command.take(20)).end is None:
        text += news.stdout
    assert text + news.stdout == "€�", "half a character at the end is none"


def test_commands_in_the_background_are_bounded(
    runner: vmrunner.Runner, pretended: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread here: an agent in a loop had as many as it liked."""
    monkeypatch.setattr(sessions, "COMMANDS", 2)

    async def work() -> None:
        async with connected(runner) as client:
            sandbox = (await call(client, "sandbox_create"))["sandbox"]
            pretended.runs.clear()
            for _ in range(2):
                await call(client, "sandbox_start", sandbox=sandbox, command="serve")
            refusal = await refused(client, "sandbox_start", sandbox=sandbox, command="serve")
            assert (
                "runs 2 commands in the background, and 2 may be (sandbox_stop ends one" in refusal
            )
            pretended.runs.set()

    anyio.run(work)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("sandbox_start", {"command": "serve"}),
        ("sandbox_list_files", {}),
        ("sandbox_write_file", {"path": "a", "text": "x"}),
    ],
)
def test_each_call_that_waits_tells_progress(
    runner: vmrunner.Runner, tool: str, arguments: dict[str, str]
) -> None:
    """The first call to a VM on a busy host takes longer than clients wait without a word."""
    heard: list[str] = []

    async def hear(_: float, __: float | None, message: str | None) -> None:
        heard.append(message or "")

    async def work() -> None:
        async with connected(runner) as client:
            sandbox = (await call(client, "sandbox_create"))["sandbox"]
            await client.call_tool(tool, {"sandbox": sandbox, **arguments}, progress_callback=hear)

    anyio.run(work)
    assert heard


def test_progress_tells_the_last_line(
    runner: vmrunner.Runner, pretended: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROGRESS", 0.01)
    messages: list[str] = []

    async def heard(_: float, __: float | None, message: str | None) -> None:
        messages.append(message or "")
        if message == "line two":
            pretended.runs.set()

    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            pretended.runs.clear()
            values = {"sandbox": name, "command": "line one\nline two"}
            await client.call_tool("sandbox_run", values, progress_callback=heard)

    anyio.run(work)
    assert "line two" in messages


def test_the_latest_line_is_clean_and_short() -> None:
    latest = server.LatestLine()
    latest.take("one\n\x1b]0;evil\x07two\x1b[31m\n\n")
    assert "\x1b" not in latest.text
    assert "two" in latest.text
    latest.take("  \n")
    assert "two" in latest.text
    latest.take("x" * 9000)
    assert len(latest.text) == server.LINE
