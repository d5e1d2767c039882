r"""The answer of a command that ran behind a socket in the VM, read as attacker input. Pure.

D <length>\n<bytes>         of its stdout
X <code> <length>\n<text>   its end: exit code and complaint
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vmrunner.session.ssh.channel_io import CAPTURE, ConnectionLost

_HEADER: Final = 48  # bytes
_PIECE: Final = 1 << 30  # bytes; what is larger is no piece


class SocketAnswer:
    """A decoder of one answer. Pieces of stdout are handed on as they come, not as they end."""

    def __init__(self, on_bytes: Callable[[bytes], object]) -> None:
        self.exit_code: int | None = None
        self.stderr = b""
        self.began = False
        self._complaint = 0  # bytes of it
        self._on_bytes = on_bytes
        self._buffer = b""
        self._missing = 0  # bytes of the piece that comes

    @property
    def is_whole(self) -> bool:
        """True once all of it came."""
        return self.exit_code is not None and len(self.stderr) >= self._complaint

    def feed(self, data: bytes) -> None:
        """Raises ConnectionLost for what is no answer."""
        self.began = True
        while data:
            if self.exit_code is not None:
                self.stderr = (self.stderr + data)[:CAPTURE]
                return
            if self._missing:
                piece, data = data[: self._missing], data[self._missing :]
                self._missing -= len(piece)
                self._on_bytes(piece)
                continue
            line, found, rest = (self._buffer + data[:_HEADER]).partition(b"\n")
            if not found:
                self._buffer, data = line, data[_HEADER:]
                if len(line) > _HEADER:
                    raise ConnectionLost("the answer is none")
                continue
            data = rest + data[_HEADER:]
            self._buffer = b""
            self._begin(line)

    def _begin(self, line: bytes) -> None:
        words = line.split(b" ")
        numbers = [int(word) for word in words[1:] if word.isdigit() and len(word) < 11]
        match words[0], numbers:
            case b"D", [length] if 0 < length <= _PIECE:
                self._missing = length
            case b"X", [code, length] if code < 256:
                self.exit_code, self._complaint = code, min(length, CAPTURE)
            case _:
                raise ConnectionLost("the answer is none")
