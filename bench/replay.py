"""An endpoint's answers, kept once and given again after a fixed time: what a command takes where
the endpoint's own processor is no part of it.

A local cloud computes its answers on this machine, one at a time; a real one takes its time and
answers side by side.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Final, NamedTuple
from urllib.parse import urlsplit

HOP: Final = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})

TIME: Final = re.compile(rb"\d{4}-\d\d-\d\dT[\w%.]+")  # of now, in a request: no other question


class Answer(NamedTuple):
    """One answer of the endpoint's."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Tape:
    """All answers by request, in their order. `upstream`: a server to ask; empty: answers come from
    here, each `latency` seconds after its request."""

    upstream: str = ""
    latency: float = 0.0
    answers: dict[tuple[str, str, bytes], list[Answer]] = field(
        default_factory=lambda: defaultdict(list)
    )
    missing: list[bytes] = field(default_factory=list)  # requests that it has no answer to
    _lock: Lock = field(default_factory=Lock)

    def rewound(self, latency: float) -> Tape:
        """The same answers for one more command, from the first on."""
        copied = {request: list(answers) for request, answers in self.answers.items()}
        return Tape(latency=latency, answers=copied)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        request = (method, path, TIME.sub(b"", body))
        if self.upstream:
            found = ask(self.upstream, method, path, headers, body)
            with self._lock:
                self.answers[request].append(found)
            return found
        time.sleep(self.latency)
        with self._lock:
            remaining = self.answers.get(request)
            if not remaining:
                self.missing.append(f"{method} {path} ".encode() + body[:300])
                return Answer(501, [], b"")
            return remaining.pop(0) if len(remaining) > 1 else remaining[0]


def ask(url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
    found = Answer(response.status, kept, response.read())
    connection.close()
    return found


@contextmanager
def served(tape: Tape) -> Iterator[str]:
    """The URL at which it answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = tape.answer(self.command, self.path, dict(self.headers), body)
            self.send_response(found.status)
            for name, value in found.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        do_GET = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
