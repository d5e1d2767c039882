"""The channel over a WebSocket: an exec stream of a pod, or bytes as they are (KubeVirt, MicroVMs).

One thread carries all streams of this process, for as long as there are any. Exec is spoken as the
API server and the kubelet have it: a byte that names the stream (0 in, 1 out, 2 err, 3 a Status),
then data; in v5 a 255 and a stream's byte end that stream, which only a client may say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from vmrunner.lib.channels import CarriedStream, StreamEnd
from vmrunner.lib.threads import DaemonThreadPool
from vmrunner.model import Address

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed, InvalidStatus

#: What an exec stream offers. An API server that is younger than 1.30 speaks v5; before, a kubelet
#: answered itself, in v4.
EXEC: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
KUBEVIRT: Final = ("plain.kubevirt.io",)
PING_EVERY: Final = 20.0  # seconds
DEAD_AFTER: Final = 60.0  # seconds since the last answer
OPENED_WITHIN: Final = 15.0  # seconds, from the name of the host to the answer of the server
FAREWELL: Final = 2.0  # seconds for the other side's
WORDS: Final = 1024  # bytes of stderr, or of an answer, that become an error's words
LARGEST: Final = 4 << 20  # bytes of a message that is taken
_PIECE: Final = 64 << 10  # bytes of one that is sent
_QUEUE: Final = 4  # messages that came and were not handed on yet
_TARGETS: Final = 8  # addresses that are resolved at once: that may ask a cloud, or run a program
_GOOD_BYE: Final = (1000, 1001, 1005)  # close codes: done, going away, none
_STDIN, _STDOUT, _STDERR, _STATUS, _END = 0, 1, 2, 3, 255


@dataclass(frozen=True, kw_only=True, slots=True)
class WebSocketTarget:
    """Place where a stream begins, with the credentials of this very moment."""

    url: str  # wss://…
    subprotocols: tuple[str, ...]  # offered, the best first: `EXEC`, or names of what is raw
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: ssl.SSLContext | None = None  # None: the system's certificates
    server_name: str | None = None  # in its certificate, where that is not the URL's host
    #: URL of an HTTP proxy. True: as the environment says (`HTTPS_PROXY`, `NO_PROXY`).
    proxy: str | Literal[True] | None = True


class WebSocketChannel:
    """`Channel` of a provider. `target` tells of an address where its stream begins; it may take
    its time, and raise what becomes the stream's error. It is called from any thread."""

    half_closes = False  # the first end, of either side, is the end of both

    def __init__(self, target: Callable[[Address], WebSocketTarget]) -> None:
        self._target = target

    def open(self, address: Address) -> socket.socket:
        ours, far = socket.socketpair()
        near = CarriedStream(fileno=ours.detach())
        near.setblocking(False)
        far.setblocking(False)
        stream = _Stream(far, near.ending, lambda: self._target(address))
        try:
            _CARRIER.carry(stream.carry)
        except BaseException:
            near.close()
            far.close()
            raise
        return near

    def is_local(self, address: Address) -> bool:  # noqa: ARG002 - as `Channel` has it
        return False


class _Carrier:
    """The thread of all streams. It ends with the last one, and another begins with the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0
        self.pool: DaemonThreadPool | None = None

    def carry(self, stream: Callable[[DaemonThreadPool], Coroutine[Any, Any, None]]) -> None:
        """Begin a stream. Raises OSError where this host starts no more threads."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                pool = DaemonThreadPool("vmrunner-websocket-targets", _TARGETS)
                thread = threading.Thread(
                    target=_run, args=(loop, pool), name="vmrunner-websockets", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    loop.close()
                    raise OSError(f"no thread for a WebSocket: {error}") from error
                self._loop, self.pool = loop, pool
            assert self.pool is not None
            self._streams += 1
            self._loop.call_soon_threadsafe(self._begin, self._loop, stream(self.pool))

    def _begin(self, loop: asyncio.AbstractEventLoop, stream: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(stream)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with self._lock:
            self._streams -= 1
            if not self._streams and self._loop is not None:
                self._loop.stop()
                self._loop = self.pool = None


def _run(loop: asyncio.AbstractEventLoop, pool: DaemonThreadPool) -> None:
    try:
        loop.run_forever()
    finally:
        pool.close()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _forget() -> None:
    """Begin anew in a child of fork: the thread is not there."""
    global _CARRIER
    _CARRIER = _Carrier()


_CARRIER = _Carrier()
os.register_at_fork(after_in_child=_forget)


class _BrokenError(Exception):
    """A stream that cannot go on; the message says why."""


class _Stream:
    """One stream: a socket's far end, and the WebSocket that carries what goes through it."""

    def __init__(
        self, far: socket.socket, ending: StreamEnd, target: Callable[[], WebSocketTarget]
    ) -> None:
        self._far = far
        self._ending = ending
        self._target = target
        self._exec = self._ends_streams = self._is_over = False
        self._stalled = False  # what came is not taken, so no answer to a ping is seen either
        self._stderr = b""

    async def carry(self, pool: DaemonThreadPool) -> None:
        """Carry it to its end; its reader hears why it ended, unless that was as it should be."""
        loop = asyncio.get_running_loop()
        first = loop.create_task(loop.sock_recv(self._far, _PIECE))
        opening = loop.create_task(self._open(pool))
        connection: ClientConnection | None = None
        try:
            await asyncio.wait({first, opening}, return_when=asyncio.FIRST_COMPLETED)
            if first.done() and not opening.done() and not await _piece(first):
                return  # hung up before it began
            connection = await opening
            await self._relay(connection, first)
        except _BrokenError as error:
            self._ending.why = str(error)
        except Exception as error:  # noqa: BLE001 - it belongs to the reader, whatever it is
            words = [str(e) or type(e).__name__ for e in (error, error.__cause__) if e is not None]
            self._ending.why = ": ".join(words)
        finally:
            await _cancelled(first, opening)
            if not opening.cancelled() and opening.exception() is None:
                connection = opening.result()  # also one that opened while we hung up
            self._far.close()
            if connection is not None:
                with contextlib.suppress(Exception):
                    await connection.close()

    async def _open(self, pool: DaemonThreadPool) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus
        from websockets.typing import Subprotocol

        class Connect(connect):
            def process_redirect(self, exc: Exception) -> Exception | str:
                return exc  # credentials go where the configuration says, and nowhere else

        try:
            async with asyncio.timeout(OPENED_WITHIN):
                target = await asyncio.wrap_future(pool.submit(self._target))
                tls: dict[str, Any] = {}
                if target.url.startswith("wss:"):
                    tls["ssl"] = target.trusted or ssl.create_default_context()
                    if target.server_name:
                        tls["server_hostname"] = target.server_name
                connection = await Connect(
                    target.url,
                    subprotocols=[Subprotocol(name) for name in target.subprotocols],
                    additional_headers=target.headers,
                    compression=None,
                    proxy=target.proxy,
                    open_timeout=None,
                    close_timeout=FAREWELL,
                    ping_interval=None,
                    max_size=LARGEST,
                    max_queue=_QUEUE,
                    **tls,
                )
        except InvalidStatus as error:
            raise _BrokenError(_refusal(error)) from None
        except TimeoutError:
            raise _BrokenError(f"no WebSocket within {OPENED_WITHIN:.0f} s") from None
        spoken = connection.subprotocol
        self._exec, self._ends_streams = spoken in EXEC, spoken == EXEC[0]
        if not self._exec and set(EXEC) & set(target.subprotocols):
            await connection.close()
            raise _BrokenError("the server speaks no exec protocol that is known here")
        return connection

    async def _relay(self, connection: ClientConnection, first: asyncio.Task[bytes]) -> None:
        """Carry until the first end of either side."""
        tasks = [
            asyncio.ensure_future(part)
            for part in (
                self._receive(connection), self._send(connection, first), self._watch(connection)
            )
        ]  # fmt: skip
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:  # what was received says more than what could not be sent
                if task in done:
                    await task
        finally:
            await _cancelled(*tasks)

    async def _send(self, connection: ClientConnection, first: asyncio.Task[bytes]) -> None:
        from websockets.exceptions import ConnectionClosed

        loop = asyncio.get_running_loop()
        head = bytes([_STDIN]) if self._exec else b""
        try:
            data = await _piece(first)
            while data:
                await connection.send(head + data)
                data = await _piece(loop.sock_recv(self._far, _PIECE))
            if self._ends_streams:
                await connection.send(bytes([_END, _STDIN]))
        except ConnectionClosed:
            await asyncio.Event().wait()  # who receives knows more

    async def _receive(self, connection: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        loop = asyncio.get_running_loop()
        while not self._is_over:
            try:
                message = await connection.recv(decode=False)
            except ConnectionClosed as error:
                self._conclude(error)
                return
            piece = self._output(memoryview(message)) if self._exec else message
            if not piece:
                continue
            self._stalled = True
            try:
                await loop.sock_sendall(self._far, piece)
            except OSError:
                return  # nobody has the other end
            self._stalled = False

    def _output(self, message: memoryview) -> memoryview:
        """The command's output in a message of exec. Raises _BrokenError for a status that is none
        of success."""
        kind, data = (message[0], message[1:]) if message else (_STDOUT, message)
        if kind == _STDOUT:
            return data
        if kind == _STDERR:
            self._stderr = (self._stderr + bytes(data[-WORDS:]))[-WORDS:]
        if kind == _STATUS:
            self._is_over = True
            if failure := _failure(bytes(data)):
                raise _BrokenError(self._with_stderr(failure))
        return message[:0]

    def _conclude(self, error: ConnectionClosed) -> None:
        """Raises _BrokenError unless such an end is as it should be: KubeVirt bids no farewell."""
        cause, farewell = error.__cause__, error.rcvd
        if farewell is None and cause is not None and not isinstance(cause, EOFError):
            raise _BrokenError(self._with_stderr(f"the WebSocket broke off: {cause}"))
        why = _plain(farewell.reason.encode()) if farewell else ""
        if farewell is not None and farewell.code not in _GOOD_BYE:
            raise _BrokenError(self._with_stderr(f"closed with {farewell.code} {why}".strip()))
        if self._exec:
            raise _BrokenError(self._with_stderr(why or "the stream ended without a status"))

    def _with_stderr(self, why: str) -> str:
        words = _plain(self._stderr)
        return f"{why}: {words}" if words else why

    async def _watch(self, connection: ClientConnection) -> None:
        """Ask whether the server is there. Raises _BrokenError once it was silent for too long."""
        from websockets.exceptions import ConnectionClosed

        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                async with asyncio.timeout(DEAD_AFTER - PING_EVERY):
                    await (await connection.ping())
            except TimeoutError:
                if not self._stalled:
                    why = f"no answer to a ping for {DEAD_AFTER:.0f} s"
                    raise _BrokenError(self._with_stderr(why)) from None
            except ConnectionClosed:
                await asyncio.Event().wait()  # who receives knows more


async def _piece(reading: Awaitable[bytes]) -> bytes:
    """Read; a socket that was closed before all was taken has ended."""
    try:
        return await reading
    except OSError:
        return b""


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _refusal(error: InvalidStatus) -> str:
    """An HTTP answer in words, with what a Status in it says."""
    answer = error.response
    body = bytes(answer.body or b"")
    why = _failure(body) if body.startswith(b"{") else ""
    words = why or _plain(body[:WORDS])
    return f"{answer.status_code} {answer.reason_phrase}" + (f": {words}" if words else "")


def _failure(text: bytes) -> str:
    """The message of a Kubernetes `Status`; "" for one of success."""
    try:
        status = json.loads(text)
        if status.get("status") == "Success":
            return ""
        words = _plain(str(status.get("message") or status.get("reason") or "").encode())
    except (ValueError, AttributeError, RecursionError):
        words = _plain(text)
    return words or "the stream failed, and no reason was given"


def _plain(text: bytes) -> str:
    """The last of a text, on one line that moves no cursor."""
    line = " ".join(text[-WORDS:].decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in line)
