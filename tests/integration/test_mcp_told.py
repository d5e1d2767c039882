"""What an agent is told: names of files and hosts, and that a call goes on."""

from __future__ import annotations

import anyio
import pytest

import vmrunner
from tests.integration.test_mcp import Slow, call, connected, pretended, runner
from tests.support.fake_runner import app

pytestmark = pytest.mark.timeout(60)
__all__ = ["app", "pretended", "runner"]


def test_a_name_that_is_no_text_hides_no_other(runner: vmrunner.Runner, pretended: Slow) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            pretended.files |= {"/work/a": b"", "/work/\udcff": b""}
            listed = await call(client, "sandbox_list_files", sandbox=name)
            assert [entry["name"] for entry in listed["entries"]] == ["a", "\ufffd"]

    anyio.run(work)


def test_an_agent_is_told_how_to_name_hosts(runner: vmrunner.Runner) -> None:
    async def work() -> None:
        async with connected(runner) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            for name in ("sandbox_create", "run_build"):
                assert "allow=HOST" in (tools[name].description or "")

    anyio.run(work)


def test_a_command_that_takes_long_reports_progress(
    runner: vmrunner.Runner, pretended: Slow
) -> None:
    """Clients give up after a minute in which they hear nothing."""

    async def heard(*_: object) -> None:
        pretended.runs.set()

    async def work() -> None:
        async with connected(runner) as client:
            name = (await call(client, "sandbox_create"))["sandbox"]
            pretended.runs.clear()
            values = {"sandbox": name, "command": "make", "timeout_seconds": 600}
            await client.call_tool("sandbox_run", values, progress_callback=heard)
            assert pretended.runs.is_set()

    anyio.run(work)
