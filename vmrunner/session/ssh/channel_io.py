"""All bytes of one remote command, both ways, by the calling thread, in bounded memory.

`channel` is paramiko's; this file needs nothing of paramiko else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from vmrunner.errors import VmrunnerError

P = ParamSpec("P")
T = TypeVar("T")

ASK_AFTER: Final = 5.0  # seconds of silence
DEAD_AFTER: Final = 8.0  # seconds without an answer then
PIECE: Final = 256 * 1024
CAPTURE: Final = 64 * 1024  # bytes of stderr that are kept


class ConnectionLost(VmrunnerError):
    """The connection is gone. What ran at the other end may run on."""


class SocketWire(Protocol):
    """The socket under the connection."""

    heard: float  # when the peer was last heard, by `time.monotonic`

    def hang_up(self) -> None:
        """End it, also under a thread that waits for it."""


class WakeupPipe:
    """A pipe that wakes a waiting exchange: bytes came, or a request."""

    def __init__(self) -> None:
        self.bell = threading.Event()
        self.wakes = 0


class SilenceWatch:
    """Notices a peer that fell silent."""

    def __init__(self, wire: SocketWire) -> None:
        self._wire = wire
        self._asked_at = 0.0  # when the question went out that is not answered yet

    def check(self, channel: Any) -> float:
        """Ask a silent peer; close on one that does not answer. Seconds until the next look."""
        now = time.monotonic()
        if self._wire.heard > self._asked_at:
            self._asked_at = 0.0
        silent = now - self._wire.heard
        if silent < ASK_AFTER:
            return ASK_AFTER - silent
        if not self._asked_at:
            channel.get_transport().ask()
            self._asked_at = now
        elif now - self._asked_at >= DEAD_AFTER:
            self._wire.hang_up()
            raise ConnectionLost(f"no answer for {silent:.0f} s")
        return self._asked_at + DEAD_AFTER - now


class CommandIO:
    """All bytes of one command, both ways. Fabric carries it to its runner as `out_stream`."""

    def __init__(
        self,
        wire: SocketWire,
        alarm: WakeupPipe,
        on_bytes: Callable[[bytes], object],
        stdin: Iterable[bytes],
        pulse: Callable[[], float],
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """`is_over`: whether the answer is whole, where the channel stays for another command."""
        self._is_over = is_over
        self.exit_code = -1
        self.stderr = bytearray()
        self.foreign: BaseException | None = None  # what a callback raised: not the connection's
        self._alarm = alarm
        self._on_bytes = self._callback(on_bytes)
        self._stdin = iter(stdin)
        self._pulse = self._callback(pulse)
        self._silence = SilenceWatch(wire)

    def run(self, channel: Any) -> None:
        """Carry bytes until the command has ended, or the channel or the connection has."""
        for buffer in (channel.in_buffer, channel.in_stderr_buffer):
            buffer.set_event(self._alarm.bell)
        channel.settimeout(ASK_AFTER)
        try:
            next_piece = self._callback(lambda: next(self._stdin, None))
            while (piece := next_piece()) is not None:
                self._send(channel, memoryview(piece))
            if self._is_over is None:
                channel.shutdown_write()
        except OSError as error:
            if error is self.foreign or not channel.closed:
                raise
        due, woken = 0.0, 0
        while True:
            self._alarm.bell.clear()
            # Before the look for bytes: the last may come in between. A channel that stays is not
            # closed by its other end alone.
            ended = channel.closed or (self._is_over is not None and channel.eof_received)
            got = self._receive(channel)
            if (ended and not got) or (self._is_over is not None and self._is_over()):
                break
            now = time.monotonic()
            if got or now >= due or woken != self._alarm.wakes:
                woken = self._alarm.wakes
                due = now + self._pulse()
                continue  # it may have taken long, or run a command that took the bell for its own
            patience = self._silence.check(channel)
            self._alarm.bell.wait(max(min(due - now, patience), 0))
        self.exit_code = channel.exit_status

    def _callback(self, call: Callable[P, T]) -> Callable[P, T]:
        """Wrap a callback, so that what it raises is told from what the connection raises."""

        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return call(*args, **kwargs)
            except BaseException as error:
                self.foreign = error
                raise

        return called

    def _receive(self, channel: Any) -> bool:
        got = False
        if channel.recv_ready():
            self._on_bytes(channel.recv(PIECE))
            got = True
        if channel.recv_stderr_ready():
            self.stderr += channel.recv_stderr(PIECE)[: CAPTURE - len(self.stderr)]
            got = True
        return got

    def _send(self, channel: Any, data: memoryview) -> None:
        while data:
            try:
                data = data[channel.send(data[:PIECE]) :]
            except TimeoutError:
                self._silence.check(channel)
            self._pulse()
