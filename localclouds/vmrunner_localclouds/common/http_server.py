"""HTTP for a local cloud: requests come in as they are, answers go out as they are."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vmrunner_localclouds.common.service import HOST

if TYPE_CHECKING:
    from vmrunner_localclouds.common.json_cloud import JsonEndpoint

log = logging.getLogger(__name__)


class HttpAnswer(NamedTuple):
    """An answer; or, with `takes_over`, who speaks on the connection from here on, to its end."""

    status: int
    body: bytes = b""
    content: str = ""  # the type of the body
    headers: Mapping[str, str] = MappingProxyType({})
    takes_over: Callable[[BaseHTTPRequestHandler], object] | None = None


class LoopbackServer(ThreadingHTTPServer):
    """The server of one cloud on 127.0.0.1."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: JsonEndpoint[Any, Any], port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.service = service
        self._open: set[socket.socket] = set()

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Hang up too: clients keep connections for a next request, which would get no answer."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, *_: object) -> None:
        log.debug("a client of a local cloud went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sys_version = ""
    # Else each answer waits 40 ms for the client to acknowledge its headers.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: LoopbackServer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = dict(self.headers.items())
        answer = self.server.service.serve(self.command, self.path, headers, body)
        if answer is None:
            self.close_connection = True
            return
        if answer.takes_over is not None:
            self.close_connection = True
            answer.takes_over(self)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body:
            self.send_header("Content-Type", answer.content)
        if answer.body or answer.status != 204:  # which has no length
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve  # noqa: N815  # their names

    def version_string(self) -> str:
        return self.server.service.name

    def date_time_string(self, _: float | None = None) -> str:
        return self.server.service.date()

    def log_request(self, *_: object) -> None:
        """Log nothing: it has no reader."""
