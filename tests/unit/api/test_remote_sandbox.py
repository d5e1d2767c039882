"""Commands over HTTP, through a server that goes away."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.api import remote_sandbox
from vmrunner.api.remote_sandbox import RemoteSandbox
from vmrunner.errors import ServerUnreachable
from vmrunner.model import CommandOrder, StreamName


class Restarting:
    """A server that answers every second request."""

    def __init__(self) -> None:
        self.requests = 0
        self.started: list[str] = []

    def _heard(self) -> None:
        self.requests += 1
        if self.requests % 2:
            raise ServerUnreachable("it starts again")

    def post(self, _path: str, body: dict[str, Any]) -> None:
        self.started.append(body["id"])  # and the answer may be lost
        self._heard()

    def one(self, _path: str, *, stdout: int, stderr: int) -> dict[str, Any]:
        self._heard()
        if not stdout:
            return {"next": {"stdout": 2, "stderr": 0}, "stdout": "b2s=", "stderr": "", "end": None}
        end = {"exit_code": 3, "timed_out": False, "truncated": False, "seconds": 1.0}
        return {"next": {"stdout": 2, "stderr": 0}, "stdout": "", "stderr": "", "end": end}


def test_a_command_goes_on_while_its_server_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_sandbox, "OUTPUT_RETRY", 0.0)
    server, heard = Restarting(), list[tuple[StreamName, bytes]]()
    sandbox = RemoteSandbox(server, "b-1")  # type: ignore[arg-type]
    order = CommandOrder(id="c", argv=("true",), title="true")
    end = sandbox.run(order, lambda stream, data: heard.append((stream, data)))
    assert (end.exit_code, heard) == (3, [(StreamName.STDOUT, b"ok")])
    assert server.started == ["c", "c"]
