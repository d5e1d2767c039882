"""A server at an address of a network that a test takes away: over VMs that are entered, or with a
build that goes on once there is a file `go`. Prints its URL, a token and that build as JSON, and
ends with stdin.

    python -m tests.support.reached_server ADDRESS DIR entered|builds
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.entered import ENTER, entered
from tests.support.http_service import only, service
from tests.support.sshd import running
from vmrunner.model import TokenScope
from vmrunner.server.listener import HttpListener


def serve(address: str, root: Path, kind: str) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_DATA_HOME", str(root / "data"))
    (root / "service").mkdir()
    with ExitStack() as stack:
        if kind == "entered":
            sshd = stack.enter_context(running(root))
            world = stack.enter_context(entered(root / "service", sshd, patch))
            world.running("b-2", sandbox_ttl=600.0, steps=())
            http, token, build = world.http, world.token(scopes=ENTER | {TokenScope.READ}), "b-1"
        else:
            http = stack.enter_context(service(root / "service"))
            http.runner._host.ensure("fake")
            steps = [f"many 50\nuntil {root / 'go'}\nmany 50\nsay the last"]
            token, client = http.token(), http.client()
            build = only(client.post("/api/v1/builds", json={"steps": steps}))["id"]
        listener = HttpListener((address, 0), http.listener.app.state.parts)
        print(json.dumps([listener.url, token, build]), flush=True)
        sys.stdin.read()
        listener.close()
    patch.undo()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
