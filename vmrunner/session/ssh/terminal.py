"""A command at a terminal in the VM, for a thread that waits for what it shows."""

from __future__ import annotations

import threading
import time
from typing import Final

from vmrunner.session.ssh.channel_io import SocketWire
from vmrunner.session.ssh.command_channel import CommandChannel
from vmrunner.session.ssh.paramiko_patches import Transport

SEND_LOOK: Final = 0.5  # seconds that one `send` waits for room


class TerminalChannel(CommandChannel):
    """One command. One thread receives; sending and the rest may be done from any."""

    def __init__(
        self, transport: Transport, wire: SocketWire, command: str, columns: int, rows: int
    ) -> None:
        super().__init__(transport, wire, command, (columns, rows))
        self._news = threading.Event()
        self.ring(self._news)
        self._channel.settimeout(SEND_LOOK)

    def receive(self, timeout: float) -> bytes | None:
        """The output, as soon as there is some; b"" at its end; None after `timeout` seconds.
        Raises ConnectionLost."""
        until = time.monotonic() + timeout
        while True:
            self._news.clear()
            if (data := self.take()) is not None:
                return data
            remaining = until - time.monotonic()
            if remaining <= 0:
                return None
            self._news.wait(min(remaining, self.check()))
