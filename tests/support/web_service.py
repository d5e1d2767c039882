"""A service in a VM that speaks HTTP and WebSockets, and says what it was sent; a hostile one says
what it likes."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.sync.server import ServerConnection, serve


class WebService:
    """HTTP at `port`. It answers each path with `answers[path]`, (status, headers, body), or with
    what it was sent, as JSON. `requests` has all of them."""

    def __init__(self) -> None:
        service = self
        self.answers: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        self.requests: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("transfer-encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                document = {
                    "method": self.command, "path": self.path, "body": len(body),
                    "headers": {name.lower(): value for name, value in self.headers.items()},
                }  # fmt: skip
                service.requests.append(document)
                path = self.path.partition("?")[0]
                plain = (200, [("Content-Type", "application/json")], json.dumps(document).encode())
                status, headers, content = service.answers.get(path, plain)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RawService:
    """Answers every connection with the same bytes, and ends it."""

    def __init__(self, answer: bytes, *, stays: bool = False) -> None:
        self._answer, self._stays = answer, stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.received.append(connection.recv(1 << 16))
                connection.sendall(self._answer)
                self._open.append(connection)
                if not self._stays:
                    connection.close()

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()


class EchoSocket:
    """A WebSocket that echoes; `headers` are those of its last opening."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._server = serve(
            self._echo, "127.0.0.1", 0, subprotocols=["chat"], compression=None,  # type: ignore[list-item]
            process_request=self._look,
        )  # fmt: skip
        self.port: int = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _look(self, connection: ServerConnection, request: Any) -> Any:
        self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
        if request.path.startswith("/refused"):
            return connection.respond(HTTPStatus.FORBIDDEN, "no\n")
        return None

    def _echo(self, connection: ServerConnection) -> None:
        for message in connection:
            if message == "bye":
                connection.close(4001, "as you wish")
            connection.send(message)

    def close(self) -> None:
        self._server.shutdown()
