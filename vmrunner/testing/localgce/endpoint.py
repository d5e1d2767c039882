"""HTTP: a server of one cloud, which handles every request alone."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner.testing.common.service import HOST, HttpEndpoint
from vmrunner.testing.localgce import fieldmask, operations, routes, scheduler, validation
from vmrunner.testing.localgce.api_error import GceRefusal, error_document
from vmrunner.testing.localgce.faults import BrokenOperation
from vmrunner.testing.localgce.requests import GceRequest, check

if TYPE_CHECKING:
    from vmrunner.testing.localgce.cloud import LocalGce

log = logging.getLogger(__name__)

_JSON: Final = "application/json; charset=UTF-8"


class GceAnswer(NamedTuple):
    status: int
    body: bytes
    content: str = _JSON


class GceEndpoint(HttpEndpoint):
    """Starts and stops the server; decides what each request is told."""

    def __init__(self, cloud: LocalGce) -> None:
        self._cloud = cloud

    def make(self, port: int) -> HTTPServer:
        return _Server(self, port)

    def date(self) -> str:
        """Return the date for the header of every answer."""
        return formatdate(self._cloud.now(), usegmt=True)

    def answer(self, request: GceRequest) -> GceAnswer | None:
        """Answer a request; None when the client hears nothing."""
        cloud = self._cloud
        if request.action.endswith("Operations.wait"):
            operations.pause(cloud, request)
        answer = self._decided(request)
        if seconds := cloud.answer_seconds.get(request.action):
            cloud.sleep(seconds)
        return answer

    def _decided(self, request: GceRequest) -> GceAnswer | None:
        cloud = self._cloud
        with cloud.lock:
            cloud.settle()
            cloud.requests.append(request)
            fate = cloud.plan(request)
            if fate is None or isinstance(fate, BrokenOperation):
                return self._handled(request, fate)
            if fate.happens:
                self._handled(request, None)
        if fate.garbage:
            return GceAnswer(fate.status, fate.garbage, "text/html")
        if not fate.code:
            return None
        return GceAnswer(fate.status, error_document(fate.status, fate.code, fate.message))

    def _handled(self, request: GceRequest, broken: BrokenOperation | None) -> GceAnswer:
        try:
            return GceAnswer(200, self._ask(request, broken))
        except GceRefusal as refusal:
            text = error_document(refusal.status, refusal.reason, refusal.message)
            return GceAnswer(refusal.status, text)
        except Exception as error:
            # Ours to mend, and no test may pass over it.
            log.exception("%s", request.action)
            self._cloud.complaints.append(f"{request.action}: {type(error).__name__}: {error}")
            return GceAnswer(500, error_document(500, "localGce", str(error)))

    def _ask(self, request: GceRequest, broken: BrokenOperation | None) -> bytes:
        method = request.method
        if method is None:
            return json.dumps(scheduler.answer(self._cloud, request)).encode()
        handler = routes.find(method.id)
        if handler is None:
            raise GceRefusal(501, "notImplemented", f"not in this cloud: {method.id}")
        try:
            check(request, method)
        except GceRefusal as refusal:
            self._cloud.rejected.append(f"{method.id}: {refusal.message}")
            raise
        routes.admit(self._cloud, request)
        said = handler(self._cloud, request, broken)
        if not method.response:
            return b""
        validation.check(said, method.response, "answer")
        if request.fields:
            said = fieldmask.only(said, request.fields, method.response)
        return json.dumps(said).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, endpoint: GceEndpoint, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.endpoint = endpoint
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
        """Hang up too: clients keep connections for a next request, which nobody would answer."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, *_: object) -> None:
        log.debug("a client of the local GCE went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ESF"
    sys_version = ""
    # Else each answer waits 40 ms for the client to acknowledge its headers.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        request = GceRequest.of(self.command, self.path, dict(self.headers.items()), body)
        answer = self.server.endpoint.answer(request)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status if answer.body else 204)
        if answer.body:
            self.send_header("Content-Type", answer.content)
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve  # noqa: N815  # their names

    def date_time_string(self, _: float | None = None) -> str:
        return self.server.endpoint.date()

    def log_request(self, *_: object) -> None:
        """Log nothing: nobody reads it."""
