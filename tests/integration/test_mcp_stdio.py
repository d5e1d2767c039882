"""`vmrunner mcp` as the program that an agent starts, and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.blackbox import Cli, until
from tests.support.blackbox import cli as cli  # the fixture
from tests.support.blackbox import cloud as cloud  # the fixture
from tests.support.command_line import home as home  # the fixture
from tests.support.file_cloud import FileCloud
from tests.vm.home import processes_with

HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "t", "version": "1"},
}


class Stdio:
    """A client of one program."""

    def __init__(self, home: Path) -> None:
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.file_cloud", "mcp"],
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._number = 0
        self.ask("initialize", **HELLO)
        self._send({"method": "notifications/initialized"})

    def _send(self, message: dict[str, Any]) -> None:
        assert self.program.stdin is not None
        self.program.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.program.stdin.flush()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        assert self.program.stdout is not None
        for line in self.program.stdout:
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == self._number:
                return answer
        raise AssertionError("it has ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_agent_that_kills_it_leaves_no_vm(
    home: Path, cli: Cli, cloud: FileCloud, number: signal.Signals
) -> None:
    """No other engine serves the ledger, and stdin stays open."""
    client = Stdio(home)
    try:
        client.ask("tools/call", name="sandbox_create", arguments={})
        assert len(cloud.alive()) == 1
        client.program.send_signal(number)
        assert client.program.wait(30) == -number
        until(lambda: not cloud.alive(), what="the end of its VM")
        until(lambda: not cli("ps", "-o", "json").items, what="the end of its row")
    finally:
        client.program.kill()
        client.program.communicate()
        for engine in processes_with([str(home)]):  # it would look for a ledger that is gone
            os.kill(int(engine.split()[0]), signal.SIGTERM)
