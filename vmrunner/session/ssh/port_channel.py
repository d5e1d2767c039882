"""A connection to a port in the VM, through the supervisor that listens on its Unix socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from vmrunner.session.ssh.channel_io import PIECE, ConnectionLost, SocketWire
from vmrunner.session.ssh.paramiko_patches import Transport
from vmrunner.session.ssh.rung_channel import WINDOW, RungChannel, translated
from vmrunner.session.ssh.socket_answer import SocketAnswer


class PortChannel(RungChannel):
    """Bytes of one connection, both ways. Several share a connection to the VM."""

    def __init__(
        self, transport: Transport, wire: SocketWire, path: str, words: Sequence[str]
    ) -> None:
        """Have the supervisor at `path` connect. Its refusal comes as the answer's end."""
        with translated():
            channel = transport.open_socket(path, WINDOW)
        super().__init__(channel, wire)
        self.ring(threading.Event())
        self._taken: list[bytes] = []
        self._answer = SocketAnswer(self._taken.append)
        head = memoryview(json.dumps(list(words)).encode() + b"\n")
        if self.send(head) != len(head):  # a new channel has room for it
            raise ConnectionLost("the VM takes no command")

    @property
    def has_ended(self) -> bool:
        return self._answer.exit_code is not None

    @property
    def refusal(self) -> tuple[int, bytes] | None:
        """The supervisor's exit code and complaint, once it told them."""
        code = self._answer.exit_code
        return None if code is None else (code, self._answer.stderr)

    def take(self) -> bytes | None:
        """Bytes from the port; b"" at their end; None: there are none yet. Raises
        ConnectionLost."""
        with translated():
            while True:
                ended = self._channel.closed or self._channel.eof_received  # first
                if self._channel.recv_ready():
                    self._answer.feed(self._channel.recv(PIECE))
                    if not self._taken:
                        continue
                    data = b"".join(self._taken)
                    self._taken.clear()
                    return data
                if not ended:
                    return None
                if not self.has_ended:
                    raise ConnectionLost("the answer was cut off")
                return b""
