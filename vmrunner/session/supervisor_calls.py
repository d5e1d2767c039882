"""Commands for the supervisor in the VM, over one connection."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Iterable
from typing import Final

from vmrunner.guest.state import Place
from vmrunner.session.ssh.client import Completed, Connection

SUPERVISOR: Final = "/usr/lib/vmrunner/supervisor"
SOCKET: Final = Place().socket  # where it answers without starting


class SupervisorCalls:
    """Calls at one epoch. The resident supervisor is asked, where the image has one; else each
    command starts a process."""

    def __init__(self, connection: Connection, epoch: int) -> None:
        self._connection = connection
        self._epoch = epoch
        self._resident = True  # as far as we know

    def ask(
        self,
        *words: str,
        on_bytes: Callable[[bytes], object] = lambda _: None,
        stdin: Iterable[bytes] = (),
        pulse: Callable[[], float] = lambda: 3600.0,
    ) -> Completed:
        """Give one command and hand on what it prints. Raises ConnectionLost."""
        if self._resident:
            spoken = self._words(*words)
            done = self._connection.call(SOCKET, spoken, on_bytes, stdin=stdin, pulse=pulse)
            if done is not None:
                return done
            self._resident = False
        return self._connection.stream(self.line(*words), on_bytes, stdin=stdin, pulse=pulse)

    def ask_next(
        self,
        *words: str,
        stdin: bytes,
        on_bytes: Callable[[bytes], object] = lambda _: None,
        pulse: Callable[[], float],
    ) -> Completed:
        """Do the same by the process that did the last such command, which saves most of its
        time."""
        if self._resident:
            done = self._connection.ask(SOCKET, self._words(*words), stdin, on_bytes, pulse=pulse)
            if done is not None:
                return done
            self._resident = False
        return self.ask(*words, stdin=[stdin], on_bytes=on_bytes, pulse=pulse)

    def relay(self, local: socket.socket, *words: str) -> Completed:
        """Let the resident supervisor speak with `local`. Raises ConnectionLost."""
        return self._connection.relay(SOCKET, self._words(*words), local)

    def line(self, *words: str) -> str:
        """The command as a shell's line, for a process of its own."""
        return shlex.join([SUPERVISOR, *self._words(*words)])

    def _words(self, command: str, *rest: str) -> list[str]:
        return [command, "--epoch", str(self._epoch), *rest]
