"""A metadata service for one guest: HTTP on the host's loopback, answered as its cloud would. Every
guest has a server of its own, so that none is ever taken for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qsl

_HOST: Final = "127.0.0.1"
_BODY: Final = 64 * 1024  # bytes: the guest may be hostile
_SILENCE: Final = 30.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class MetadataRequest:
    """One request. The names of headers are in lower case; the path is without its query, of which
    only the last value of a name counts."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[MetadataRequest], Reply]


class MetadataServer:
    """A metadata server, which listens from its making until `close`."""

    def __init__(self, answer: Answer) -> None:
        self._server = _Server((_HOST, 0), _Handler)
        self._server.answer = answer
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE

    def _reply(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _BODY:
            self.close_connection = True
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        assert isinstance(self.server, _Server)
        path, _, query = self.path.partition("?")
        reply = self.server.answer(
            MetadataRequest(
                method=self.command,
                path=path,
                headers={name.lower(): value for name, value in self.headers.items()},
                query=dict(parse_qsl(query, keep_blank_values=True)),
                body=body,
            )
        )
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply  # noqa: N815 - the server's names

    def log_message(self, *_: object) -> None:
        """Log nothing: it has no reader."""
