"""WebSockets of a server: its terminals and ports, as bytes and control frames."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import Conflict, NoValidToken, ServerUnreachable, VmrunnerError
from vmrunner.lib import cancellation
from vmrunner.services.client import certificates
from vmrunner.services.client.http_client import API, CONNECT, HttpClient, problem

if TYPE_CHECKING:
    from websockets.exceptions import ConnectionClosed

TERMINAL: Final = "vmrunner.terminal.v1"
PORT: Final = "vmrunner.port.v1"
LARGEST: Final = 4 << 20  # bytes of a frame that is taken
PIECE: Final = 64 << 10  # bytes of one that is sent
CLOSE: Final = 2.0  # seconds for the other side's farewell
NO_TOKEN: Final = 4401  # close codes of a server
IDLE: Final = 4408
STOPS: Final = 1012


class ServerSocket:
    """One WebSocket. One thread receives; another may send."""

    def __init__(self, client: HttpClient, path: str, protocol: str) -> None:
        """Raises what the server raised, ServerUnreachable."""
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        self._url = client.url
        self._sending = threading.Lock()
        self._error: VmrunnerError | None = None
        self._stack = ExitStack()
        url = "ws" + client.url.removeprefix("http") + API + path
        try:
            self._socket = self._stack.enter_context(
                connect(
                    url,
                    ssl=certificates.trusted() if url.startswith("wss:") else None,
                    subprotocols=[Subprotocol(protocol)],
                    additional_headers=client.headers,
                    compression=None,
                    max_size=LARGEST,
                    open_timeout=CONNECT,
                    close_timeout=CLOSE,
                )
            )
        except InvalidStatus as error:
            answer = error.response
            raise client.problem(answer.status_code, bytes(answer.body or b"")) from None
        except (OSError, WebSocketException) as error:
            raise ServerUnreachable(
                f"{self._url}: {str(error) or type(error).__name__}",
                hint="is it up, and VMRUNNER_SERVER right? A proxy must pass WebSockets on",
            ) from None

    def receive(self, timeout: float | None = cancellation.LOOK) -> bytes | dict[str, Any] | None:
        """The next frame: bytes, or a control frame; None: none came for `timeout` seconds. Raises
        what an error frame says, or why it was closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            frame = self._socket.recv(timeout=timeout)
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise self._error or self._closed(error) from None
        if isinstance(frame, bytes):
            return frame
        document: dict[str, Any] = json.loads(frame)
        if document.get("type") != "error":
            return document
        body = json.dumps(document).encode()
        self._error = problem(int(document.get("status") or 500), body)
        raise self._error

    def send(self, data: bytes | memoryview) -> bool:
        """Send bytes, at most `PIECE` in a frame; returns once all was sent. False: it is
        closed."""
        from websockets.exceptions import ConnectionClosed

        view = memoryview(data)
        try:
            with self._sending:
                for start in range(0, len(view), PIECE):
                    self._socket.send(bytes(view[start : start + PIECE]))
        except ConnectionClosed:
            return False
        return True

    def tell(self, kind: str, **values: Any) -> bool:
        """Send a control frame. False: it is closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            with self._sending:
                self._socket.send(json.dumps({"type": kind, **values}))
        except ConnectionClosed:
            return False
        return True

    def close(self) -> None:
        """Hang up. From any thread, and again is harmless."""
        self._stack.close()

    def _closed(self, error: ConnectionClosed) -> VmrunnerError:
        code = error.rcvd.code if error.rcvd else None
        reason = error.rcvd.reason if error.rcvd else ""
        if code == NO_TOKEN:
            return NoValidToken(f"{self._url}: {reason}", hint="see VMRUNNER_TOKEN")
        if code == IDLE:
            return Conflict(f"the connection was closed: {reason}", hint="open another one")
        if code == STOPS:
            return ServerUnreachable(
                f"{self._url} stops", hint="the same again: it comes back, or another node serves"
            )
        why = reason or "the server is gone, or something in between"
        return ServerUnreachable(
            f"the connection to {self._url} broke off: {why}", hint="the same again"
        )


def _check_started(frame: object, url: str) -> None:
    if not isinstance(frame, dict) or frame.get("type") != "started":
        raise ServerUnreachable(f"{url} does not answer as a server of ours")


class RemoteCommand:
    """A command in a VM, over a server. An `OpenedTerminal`, and its stdin."""

    def __init__(
        self,
        client: HttpClient,
        path: str,
        command: tuple[str, ...],
        *,
        size: tuple[int, int] | None,
        container: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "/work",
    ) -> None:
        """Start it, at a terminal of `size` (columns, rows) or without one; nothing: a shell.
        Raises what the server raised."""
        self._socket = ServerSocket(client, path, TERMINAL)
        self._exit_code: int | None = None
        self._is_open = True
        self._closed = False
        start: dict[str, Any] = {
            "command": list(command), "container": container, "tty": size is not None,
            "env": dict(env or {}), "cwd": cwd,
        }  # fmt: skip
        if size is not None:
            start |= {"columns": size[0], "rows": size[1]}
        try:
            self._socket.tell("start", **start)
            while (frame := self._socket.receive()) is None or frame == b"":
                cancellation.check()
            _check_started(frame, client.url)
        except BaseException:
            self._socket.close()
            raise

    @property
    def exit_code(self) -> int | None:
        """The exit code; None until it has come."""
        return self._exit_code

    @property
    def is_open(self) -> bool:
        return self._is_open

    def next_frame(self) -> tuple[int, bytes] | None:
        """The next output with its descriptor, 1 or 2; None: there was none for a while, or it has
        ended, which `exit_code` tells. Raises what ended it otherwise."""
        import base64

        try:
            frame = self._socket.receive()
        except VmrunnerError:
            self._is_open = False
            raise
        if isinstance(frame, bytes):
            return 1, frame
        if frame is None:
            return None
        if frame["type"] == "stderr":
            return 2, base64.b64decode(frame["data"])
        if frame["type"] == "exit":
            self._exit_code = int(frame["code"])
            self._is_open = False
        return None

    def receive(self) -> bytes | None:
        try:
            found = self.next_frame()
        except VmrunnerError as error:
            if self._closed:
                return b""
            if isinstance(error, ServerUnreachable):
                raise Conflict(str(error.args[0]), hint="open another one") from error
            raise
        if found is not None:
            return found[1]
        return None if self.exit_code is None else b""

    def send(self, data: bytes | memoryview) -> bool:
        """Type it, or send it on stdin. False: the command has ended."""
        return self._socket.send(data)

    def end_input(self) -> None:
        """Send nothing more on stdin."""
        self._socket.tell("eof")

    def signal(self, name: str) -> None:
        """Send it a signal, such as TERM."""
        self._socket.tell("signal", signal=name)

    def resize(self, columns: int, rows: int) -> None:
        self._socket.tell("resize", columns=columns, rows=rows)

    def close(self) -> None:
        self._closed = True
        self._socket.close()
