"""A command in the VM, at a terminal or without one, over a connection that is its alone."""

from __future__ import annotations

import threading
from typing import Any

import paramiko

from vmrunner.session.ssh.channel_io import PIECE, ConnectionLost, SocketWire
from vmrunner.session.ssh.paramiko_patches import Transport
from vmrunner.session.ssh.rung_channel import WINDOW, RungChannel, translated


class CommandChannel(RungChannel):
    """One command, at a terminal of `size` (columns, rows) or, without one, with stdout and stderr
    apart."""

    def __init__(
        self, transport: Transport, wire: SocketWire, command: str, size: tuple[int, int] | None
    ) -> None:
        with translated():
            channel: Any = transport.open_session(window_size=WINDOW)
            if size is not None:
                transport.ask_terminal(channel, *size)
            transport.begin(channel, command)
        super().__init__(channel, wire)
        self.ring(threading.Event())

    @property
    def exit_code(self) -> int | None:
        """The exit code; None until it has come."""
        code = int(self._channel.exit_status)
        return None if code == -1 else code

    @property
    def has_ended(self) -> bool:
        return self.exit_code is not None

    def take(self) -> bytes | None:
        """The output that is there; b"" at its end; None: there is none yet. Raises
        ConnectionLost."""
        with translated():
            ended = self._channel.closed  # first: then all has come
            if self._channel.recv_ready():
                return bytes(self._channel.recv(PIECE))
            if not ended or self._channel.recv_stderr_ready():
                return None
            if not self.has_ended:
                raise ConnectionLost("connection lost")
            return b""

    def take_stderr(self) -> bytes:
        """The stderr that is there."""
        with translated():
            ready = self._channel.recv_stderr_ready()
            return bytes(self._channel.recv_stderr(PIECE)) if ready else b""

    def signal(self, name: str) -> None:
        """Send it a signal, by SSH's name. paramiko has no words for it (RFC 4254, 6.9)."""
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)
        message.add_string(name)
        with translated():
            self._channel.transport._send_user_message(message)

    def resize(self, columns: int, rows: int) -> None:
        """Tell it the terminal's new size."""
        with translated():
            self._channel.resize_pty(columns, rows)
