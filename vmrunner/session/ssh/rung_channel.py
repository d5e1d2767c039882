"""A channel whose owner takes its bytes when a bell was rung: one event loop may have hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import paramiko

from vmrunner.session.ssh.channel_io import PIECE, ConnectionLost, SilenceWatch, SocketWire
from vmrunner.session.ssh.explanations import explain

#: Bytes that may be on their way to us: who writes more waits. So what is typed into a flood is
#: soon seen, and what a slow reader has not taken is little.
WINDOW: Final = 256 << 10


class Bell(Protocol):
    """Rung by another thread when something came or ended."""

    def set(self) -> None:
        """Ring. It must not wait, and may come at any time."""


class RungChannel:
    """One thread at a time receives; sending and the rest may be done from any."""

    def __init__(self, channel: Any, wire: SocketWire) -> None:
        self._channel = channel
        self._silence = SilenceWatch(wire)

    def ring(self, bell: Bell) -> None:
        """Ring this bell now, and whenever something came or it ended. From now on `send` waits
        for nothing."""
        self._channel.settimeout(0.0)
        for buffer in (self._channel.in_buffer, self._channel.in_stderr_buffer):
            buffer.set_event(bell)

    def send(self, data: memoryview) -> int | None:
        """Send a piece of it and return how much that was, nothing where there is no room now;
        None: the other end has ended. Raises ConnectionLost."""
        try:
            with translated():
                return int(self._channel.send(data[:PIECE]))
        except TimeoutError:
            self._silence.check(self._channel)
            return 0
        except ConnectionLost:
            if not self.has_ended:
                raise
            return None

    @property
    def has_ended(self) -> bool:
        """True if the other end told how it ended."""
        raise NotImplementedError

    def end_input(self) -> None:
        """Tell the other end that nothing more is sent."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def check(self) -> float:
        """Ask a peer that fell silent. Seconds until the next look. Raises ConnectionLost."""
        with translated():
            return self._silence.check(self._channel)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()


@contextmanager
def translated() -> Iterator[None]:
    """Raise ConnectionLost for what a lost connection raises."""
    try:
        yield
    except TimeoutError:
        raise
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise ConnectionLost(f"connection lost: {explain(error)}") from error
