"""A command in a VM over a server: its bytes go to this stdout and come from this stdin, at this
terminal where it is at one."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from vmrunner.cli import output
from vmrunner.cli.signals import Signals
from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.services.client import HttpClient
    from vmrunner.services.client.websocket import RemoteCommand

_INPUT: Final = 0  # descriptors
_OUTPUT: Final = 1
_PIECE: Final = 64 << 10
#: Typed at the beginning of a line: hang up. As ssh has it, for when the other side is gone.
_LEAVE: Final = b"~."
_NAMES: Final = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP"}


def run(
    client: HttpClient,
    path: str,
    command: list[str],
    *,
    terminal: bool,
    container: bool = False,
    stdin: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str = "/work",
) -> int:
    """Run a command by the route `path`, at a terminal or without one, to its end; nothing: a
    shell. Returns its exit code, or that of a signal that came here. Raises what the server
    raised."""
    from vmrunner.services.client.websocket import RemoteCommand

    size = _size() if terminal else None
    opened = RemoteCommand(
        client, path, tuple(command), size=size, container=container, env=env, cwd=cwd
    )
    with ExitStack() as stack:
        stack.callback(opened.close)
        signals = stack.enter_context(Signals(second_leaves=True).on())
        keyboard = _Keyboard(opened, terminal=terminal)
        stack.callback(keyboard.close)
        if terminal:
            stack.enter_context(_raw())
            stack.enter_context(_resized(keyboard))
        if stdin:
            keyboard.start()
        elif not terminal:
            opened.end_input()
        return _shown(opened, signals, keyboard, terminal=terminal)


def _shown(opened: RemoteCommand, signals: Signals, keyboard: _Keyboard, *, terminal: bool) -> int:
    """Show what it writes, to its end."""
    is_passed_on = False
    while opened.exit_code is None:
        try:
            found = opened.next_frame()
        except VmrunnerError:
            if keyboard.escaped:
                return 128 + signal.SIGHUP
            raise
        if found is not None:
            _write(*found)
        if signals.first is not None and not is_passed_on:
            if terminal:
                return signals.code
            is_passed_on = True
            opened.signal(_NAMES[signals.first])
            output.say(f"sent {signals.first.name} to the command; once more leaves at once")
    return signals.code if signals.first is not None else opened.exit_code


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class _Keyboard(threading.Thread):
    """Sends what comes on stdin, and the terminal's size when it is another one. `left`: who types
    has hung up."""

    def __init__(self, opened: RemoteCommand, *, terminal: bool) -> None:
        super().__init__(name="stdin", daemon=True)
        self._opened = opened
        self._escape = EscapeKeys() if terminal else None
        self._resized, self._bell = os.pipe()
        self.escaped = False

    def resize(self) -> None:
        """Let the size be told. It may be called by a signal's handler."""
        with suppress(OSError):
            os.write(self._bell, b"r")

    def close(self) -> None:
        """Send nothing more."""
        with suppress(OSError):
            os.write(self._bell, b"q")

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([_INPUT, self._resized], [], [])
            if self._resized in ready:
                if b"q" in os.read(self._resized, 64):
                    return
                self._opened.resize(*_size())
            if _INPUT in ready and not self._send():
                return

    def _send(self) -> bool:
        """Send what there is; False: nothing more will be."""
        try:
            data = os.read(_INPUT, _PIECE)
        except OSError:  # its terminal is gone
            data = b""
        if not data:
            self._opened.end_input()
            return False
        if self._escape is not None:
            data, self.escaped = self._escape.feed(data)
            if self.escaped:
                self._opened.close()
                return False
        return self._opened.send(data)


class EscapeKeys:
    """`~.` at the beginning of a line, which is sent nowhere; `~~` is one `~`."""

    def __init__(self) -> None:
        self._begins, self._tilde = True, False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Keys that are sent, and whether who types wants to leave."""
        sent = bytearray()
        for key in data:
            if self._tilde:
                self._tilde = False
                if key == _LEAVE[1]:
                    return bytes(sent), True
                if key != _LEAVE[0]:
                    sent.append(_LEAVE[0])
            elif self._begins and key == _LEAVE[0]:
                self._tilde = True
                continue
            sent.append(key)
            self._begins = key in b"\r\n"
        return bytes(sent), False


def _size() -> tuple[int, int]:
    """Columns and rows of this terminal."""
    try:
        columns, rows = os.get_terminal_size(_OUTPUT)
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24  # one that nobody gave a size has none


@contextmanager
def _raw() -> Iterator[None]:
    """Let each key come as it is, and Ctrl-C be the command's."""
    before = termios.tcgetattr(_INPUT)
    tty.setraw(_INPUT, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(_INPUT, termios.TCSADRAIN, before)


@contextmanager
def _resized(keyboard: _Keyboard) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, lambda *_: keyboard.resize())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def at_terminal() -> bool:
    """True if who runs this sits at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
