"""A command at a terminal in the VM, over a connection that is its alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import paramiko

from vmrunner.session.ssh.channel_io import PIECE, ConnectionLost, SilenceWatch, SocketWire
from vmrunner.session.ssh.explanations import explain
from vmrunner.session.ssh.paramiko_patches import Transport

#: Bytes that may be on their way to us: a program that writes more waits. So what is typed into a
#: flood is soon seen.
WINDOW: Final = 256 << 10
SEND_LOOK: Final = 0.5  # seconds that one `send` waits for room


class TerminalChannel:
    """One command. One thread receives; sending and the rest may be done from any."""

    def __init__(
        self, transport: Transport, wire: SocketWire, command: str, columns: int, rows: int
    ) -> None:
        self._bell = threading.Event()
        self._silence = SilenceWatch(wire)
        with _translated():
            self._channel: Any = transport.open_session(window_size=WINDOW)
            transport.ask_terminal(self._channel, columns, rows)
            transport.begin(self._channel, command)
            self._channel.settimeout(SEND_LOOK)
        self._channel.in_buffer.set_event(self._bell)

    @property
    def exit_code(self) -> int | None:
        """The exit code; None until it has come."""
        code = int(self._channel.exit_status)
        return None if code == -1 else code

    def receive(self, timeout: float) -> bytes | None:
        """The output, as soon as there is some; b"" at its end; None after `timeout` seconds.
        Raises ConnectionLost."""
        until = time.monotonic() + timeout
        with _translated():
            while True:
                self._bell.clear()
                ended = self._channel.closed  # first: then all has come
                if self._channel.recv_ready():
                    return bytes(self._channel.recv(PIECE))
                if ended:
                    if self.exit_code is None:
                        raise ConnectionLost("connection lost")
                    return b""
                remaining = until - time.monotonic()
                if remaining <= 0:
                    return None
                self._bell.wait(min(remaining, self._silence.check(self._channel)))

    def send(self, data: memoryview) -> int | None:
        """Send a piece of it and return how much that was, nothing where there was no room for a
        while; None: the command has ended. Raises ConnectionLost."""
        try:
            with _translated():
                return int(self._channel.send(data[:PIECE]))
        except TimeoutError:
            self._silence.check(self._channel)
            return 0
        except ConnectionLost:
            if self.exit_code is None:
                raise
            return None

    def resize(self, columns: int, rows: int) -> None:
        """Tell it the terminal's new size."""
        with _translated():
            self._channel.resize_pty(columns, rows)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise ConnectionLost(f"connection lost: {explain(error)}") from error
