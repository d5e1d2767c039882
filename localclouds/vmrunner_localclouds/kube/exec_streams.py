"""Programs in pods over a WebSocket, as the API server and a kubelet of 1.34.2 have it:
apiserver/pkg/util/proxy/websocket.go and streamtranslator.go for v5, kubelet's
cri/streaming/remotecommand/websocket.go for v4, apimachinery/pkg/util/httpstream/wsstream/conn.go.

A byte names the stream: 0 in, 1 out, 2 err, 3 a Status; in v5 a 255 and one byte end a stream of
the client's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import IO, Final, Protocol

from vmrunner_localclouds.kube.api_error import Json, status_document
from vmrunner_localclouds.kube.requests import KubeRequest
from vmrunner_localclouds.kube.websocket import WebSocket, ready

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
SUCCESS: Final[Json] = {"metadata": {}, "status": "Success"}
_IN, _OUT, _ERR, _STATUS, _END = 0, 1, 2, 3, 255
_PIECE: Final = 1 << 15
_TICK: Final = 0.5  # seconds between looks at whether the cluster still wants this stream


class Program(Protocol):
    """A program that runs in a container."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def wait(self) -> int: ...
    def kill(self) -> None: ...


def refusal(message: str) -> Json:
    """The Status of what could not be started (`NewInternalError`)."""
    return status_document(500, "InternalError", f"Internal error occurred: {message}")


def ended(code: int) -> Json:
    """The Status of a program's end (client-go tools/remotecommand/v4.go reads it)."""
    if code == 0:
        return SUCCESS
    text = f"command terminated with non-zero exit code: exit status {code}"
    status = status_document(0, "NonZeroExitCode", text)
    del status["code"]
    return status | {"details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}}


class ExecStream:
    """One exec stream. `begin` starts the program, or raises OSError with the words."""

    def __init__(self, request: KubeRequest, chosen: str, begin: Callable[[], Program]) -> None:
        self._chosen = chosen
        self._begin = begin
        self._wants = {
            number
            for number, name in ((_IN, "stdin"), (_OUT, "stdout"), (_ERR, "stderr"))
            if request.flag(name)
        }
        self._cut = threading.Event()

    def cut(self) -> None:
        """Break the connection off."""
        self._cut.set()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        websocket = WebSocket(handler, self._chosen)
        if self._wants - {_IN}:
            websocket.send(bytes([min(self._wants - {_IN})]))  # the first message is an empty one
        try:
            program = self._begin()
        except OSError as error:
            self._end(websocket, refusal(str(error)))
            return
        try:
            code = _Relay(websocket, program, self._wants, self._cut, self._chosen == V5).run()
        finally:
            for file in (program.stdin, program.stdout, program.stderr):
                with contextlib.suppress(OSError):
                    file.close()
        if code is not None:
            self._end(websocket, ended(code))

    def _end(self, websocket: WebSocket, status: Json) -> None:
        websocket.send(bytes([_STATUS]) + json.dumps(status).encode())
        websocket.farewell()
        websocket.finish()


class _Relay:
    """Carries bytes between a WebSocket and a program, in one thread."""

    def __init__(
        self,
        websocket: WebSocket,
        program: Program,
        wants: set[int],
        cut: threading.Event,
        ends_streams: bool,
    ) -> None:
        self._websocket = websocket
        self._program = program
        self._wants = wants
        self._cut = cut
        self._ends_streams = ends_streams
        self._stdin: bytes | None = b""  # to be written; None: it is closed
        self._closing = False  # stdin, once all is written
        self._outputs = {_OUT: program.stdout.fileno(), _ERR: program.stderr.fileno()}
        self._code: int | None = None
        self._near, far = socket.socketpair()
        os.set_blocking(program.stdin.fileno(), False)
        waiter = threading.Thread(target=self._wait, args=(far,), daemon=True)
        waiter.start()

    def _wait(self, far: socket.socket) -> None:
        self._code = self._program.wait()
        far.close()

    def run(self) -> int | None:
        """The exit code; None: the client has gone, or was cut off."""
        with self._near:
            if _IN not in self._wants:
                self._close_stdin()
            while True:
                if self._cut.is_set() or not self._websocket.open:
                    return None
                if self._code is not None and not self._outputs:
                    return self._code
                self._turn()

    def _turn(self) -> None:
        # A full stdin holds the client back.
        hungry = self._stdin is None or len(self._stdin) < _PIECE
        reads = [self._websocket.fileno()] if hungry else []
        if not self._websocket.full:
            reads += self._outputs.values()
        if self._code is None:
            reads.append(self._near.fileno())
        writes = [self._websocket.fileno()] if self._websocket.waiting else []
        if self._stdin:
            writes.append(self._program.stdin.fileno())
        found = ready(reads, writes, _TICK)
        for number, file in list(self._outputs.items()):
            if file in found:
                self._read(number, file)
        if hungry:
            for message in self._websocket.messages():
                self._take(message)
        self._write()
        self._websocket.flush()

    def _read(self, number: int, file: int) -> None:
        data = os.read(file, _PIECE)
        if not data:
            del self._outputs[number]
        elif number in self._wants:
            self._websocket.send(bytes([number]) + data)

    def _take(self, message: bytes) -> None:
        if self._ends_streams and message[:1] == bytes([_END]):
            if len(message) != 2:
                self._cut.set()
            elif message[1] == _IN:
                self._closing = True
        elif message[:1] == bytes([_IN]) and self._stdin is not None and _IN in self._wants:
            self._stdin += message[1:]

    def _write(self) -> None:
        if self._stdin:
            try:
                written = os.write(self._program.stdin.fileno(), self._stdin)
            except BlockingIOError:
                return
            except OSError:  # the program reads no more
                self._close_stdin()
                return
            self._stdin = self._stdin[written:]
        if self._closing and not self._stdin:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._stdin = None
            with contextlib.suppress(OSError):
                self._program.stdin.close()
