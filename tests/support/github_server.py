"""The fake GitHub on loopback, for programs."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator

from tests.support.fake_github import FakeGithub

POLL = 5.0  # seconds that a poll for a message takes, when there is none


class _Handler(http.server.BaseHTTPRequestHandler):
    github: FakeGithub
    base: str

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
        body = json.loads(data) if data else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        until = time.monotonic() + POLL
        while True:
            found = self.github.ask(self.command, self.base + self.path, headers, body)
            if found.status != 202 or time.monotonic() > until:
                break
            threading.Event().wait(0.1)
        content = b"" if found.body is None else json.dumps(found.body).encode()
        with contextlib.suppress(ConnectionError):  # whoever asked may have gone
            self.send_response(found.status)
            for name, value in {**found.headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - as they are called

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@contextlib.contextmanager
def served_github() -> Iterator[tuple[FakeGithub, str]]:
    """The fake, and the URL of its organisation."""
    github = FakeGithub(time.time)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    base = f"http://127.0.0.1:{server.server_address[1]}"
    handler = type("Handler", (_Handler,), {"github": github, "base": base})
    server.RequestHandlerClass = handler
    github.service = f"{base}/tenant"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield github, f"{base}/acme"
    finally:
        server.shutdown()
        server.server_close()
