"""A caller behind nginx, in another network: prints what it had, as JSON. Its arguments are ports
of two services in the sandbox `b-2`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
from websockets.sync.client import connect

import vmrunner
from tests.support.browser import Visitor, chromium
from vmrunner.services.client import certificates

PROGRAM = [sys.executable, "-m", "vmrunner"]
EVIL = bytes(range(256)) * 2000


def at_terminal(*words: str) -> str:
    """What a command shows at a terminal."""
    shown = b""

    def read(descriptor: int) -> bytes:
        nonlocal shown
        data = os.read(descriptor, 65536)
        shown += data
        return data

    with Path(os.devnull).open("wb") as quiet:
        before = os.dup(1)
        os.dup2(quiet.fileno(), 1)
        try:
            pty.spawn([*PROGRAM, *words], read, lambda _: b"")
        finally:
            os.dup2(before, 1)
    return shown.decode("utf-8", "replace")


def at_pages_terminal(url: str, token: str) -> str:
    """What a shell shows that somebody types into in the page of the build `b-1`."""
    with chromium(Path(os.environ["HOME"])) as browser:
        visitor = Visitor(browser, url, token, ignore_https_errors=True)
        page = visitor.page
        page.goto(f"{url}/builds/b-1")
        page.click("#terminal")
        page.locator(".xterm-helper-textarea").wait_for()
        page.keyboard.type("echo $((40 + 2)) by TLS; exit 7\n")
        page.get_by_text("The shell has ended (7).").wait_for()
        shown: str = page.locator(".xterm-rows").inner_text().replace("\xa0", " ")
        visitor.close()
    return shown


def main() -> None:
    port, echo = int(sys.argv[1]), int(sys.argv[2])
    url, token = os.environ["VMRUNNER_SERVER"], os.environ["VMRUNNER_TOKEN"]
    found: dict[str, Any] = {}
    done = subprocess.run(
        [*PROGRAM, "ssh", "b-1", "--", "sh", "-c", "cat; exit 9"],
        input=EVIL, capture_output=True, check=False,
    )  # fmt: skip
    found["ssh"] = (done.returncode, done.stdout == EVIL, done.stderr.decode())
    found["terminal"] = at_terminal("sandbox", "exec", "-t", "b-2", "--", "sh", "-c", "tty; exit 3")
    with contextlib.closing(vmrunner.Runner(url=url, token=token)) as runner:
        sandbox = vmrunner.Sandbox.connect("b-2", runner=runner)
        with (
            sandbox.forward(port) as forward,
            socket.create_connection(forward.address, timeout=30) as local,
        ):
            local.sendall(b"GET /direct HTTP/1.0\r\n\r\n")
            data = b""
            while piece := local.recv(65536):
                data += piece
            found["forward"] = data.partition(b"\r\n")[0].decode()
        sandbox.close()
    headers = {"Authorization": f"Bearer {token}"}
    base = f"/api/v1/builds/b-2/ports/{port}"
    with httpx2.Client(base_url=url, headers=headers, verify=certificates.trusted()) as client:
        found["page"] = client.post(f"{base}/a%2Fb?x=1", content=EVIL).json()
        found["upgrade"] = client.get("/api/v1/builds/b-1/terminal").status_code
    own = f"{port}-b-2.ports.example.org"
    with httpx2.Client(headers=headers, verify=certificates.trusted()) as client:
        found["own"] = client.get(f"https://{own}/own").json()["path"]
    with connect(
        f"wss://builds.example.org/api/v1/builds/b-2/ports/{echo}/", ssl=certificates.trusted(),
        additional_headers=headers, subprotocols=["chat"], proxy=None,  # type: ignore[list-item]
    ) as websocket:  # fmt: skip
        websocket.send("through nginx")
        found["websocket"] = websocket.recv(timeout=30)
    found["page's terminal"] = at_pages_terminal(url, token)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
