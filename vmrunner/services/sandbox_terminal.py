"""A terminal in a sandbox: a command that its box starts at a PTY, over an SSH connection of its
own. What `vmrunner sandbox shell` shows a person, as bytes for a program."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from vmrunner.errors import Conflict, NotFinished, NotFound
from vmrunner.lib import cancellation
from vmrunner.session.ssh import client

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.model import CommandOrder
    from vmrunner.session.ssh.terminal import TerminalChannel

START: Final = 120.0  # seconds until the command must have begun
SAID: Final = 64 << 10  # bytes that may come before that
UNKNOWN: Final = 127  # a shell's exit code for a command that is not there
#: Says by $1, if that is anything, when the command begins, which runs in $2 with the variables
#: before --.
_TOLD: Final = """
begins=$1
cd -- "$2" || exit 126
shift 2
while [ "$1" != -- ]; do export "$1"; shift; done
shift
command -v -- "$1" >/dev/null || { echo "$1: not found" >&2; exit 127; }
[ -z "$begins" ] || printf '%s\\036' "$begins"
exec "$@"
"""


def command_words(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], mark: str = ""
) -> list[str]:
    """Return the words that run a command in `cwd` with these variables; they show `mark`, if that
    is anything, when it begins."""
    variables = [f"{name}={value}" for name, value in env.items()]
    return ["sh", "-c", _TOLD, "sh", mark, cwd, *variables, "--", *argv]


def output_after(channel: TerminalChannel, mark: str) -> bytes:
    """Wait until the container has shown the mark; return what came after it. Raises NotFound where
    there is no such command, Conflict where it ended before, NotFinished."""
    until, end = time.monotonic() + START, f"{mark}\x1e".encode()
    output, has_ended = b"", False
    while end not in output:  # looked for first: a flood may come with it
        if has_ended or len(output) > SAID:
            done = client.Completed(channel.exit_code or 0, b"", output)
            kind = NotFound if done.exit_code == UNKNOWN else Conflict
            raise kind(f"terminal: {done.complaint}")
        if time.monotonic() >= until:
            raise NotFinished(f"terminal: it did not begin within {START:.0f} s")
        cancellation.check()
        data = channel.receive(cancellation.LOOK)
        output, has_ended = output + (data or b""), data == b""
    return output.partition(end)[2]


class SandboxTerminal:
    """`OpenedTerminal` of one command, which ends with its connection. `lost` raises what the
    loss of that means."""

    def __init__(
        self,
        connection: client.Connection,
        box: Box,
        order: CommandOrder,
        columns: int,
        rows: int,
        lost: Callable[[Exception], NoReturn],
    ) -> None:
        """Start it. Raises NotFound where there is no such command, Conflict where it cannot be."""
        self._connection = connection
        self._lost = lost
        self._closed = False
        mark = secrets.token_hex(16)
        argv = command_words(order.argv, order.cwd, order.env, mark)
        line = shlex.join(box.inside(argv, held=False, terminal=mark))
        try:
            self._channel = connection.terminal(line, columns, rows)
            self._shown = output_after(self._channel, mark)
        except BaseException:
            connection.close()
            raise

    @property
    def exit_code(self) -> int | None:
        return self._channel.exit_code

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    def receive(self) -> bytes | None:
        if self._shown:
            shown, self._shown = self._shown, b""
            return shown
        try:
            return self._channel.receive(cancellation.LOOK)
        except client.ConnectionLost as error:
            if self._closed:
                return b""
            self._lost(error)

    def send(self, data: bytes) -> bool:
        remaining = memoryview(data)
        while remaining:
            cancellation.check()
            try:
                sent = self._channel.send(remaining)
            except client.ConnectionLost as error:
                if self._closed:
                    return False
                self._lost(error)
            if sent is None:
                return False
            remaining = remaining[sent:]
        return True

    def resize(self, columns: int, rows: int) -> None:
        try:
            self._channel.resize(columns, rows)
        except client.ConnectionLost as error:
            if not self._closed and self.exit_code is None:
                self._lost(error)

    def close(self) -> None:
        self._closed = True
        self._channel.close()
        self._connection.close()
