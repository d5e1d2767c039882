"""Where a build's log goes: stdout, or stderr where stdout is data."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO, Final

from vmrunner import terminal
from vmrunner.cli import output
from vmrunner.model import Chunk

#: What a pipe that takes anything takes at once.
_PIECE: Final = 4096


class LogSink:
    """Where the build's output goes: its own bytes into a pipe or file; what a terminal or a CI
    system would obey is taken out first. While whoever reads it takes nothing, `held_up` is called
    again and again: a write that blocked would hear of no signal."""

    def __init__(self, stream: BinaryIO, *, tty: bool, timestamps: bool) -> None:
        self._stream = stream
        self.held_up: Callable[[], object] = lambda: None
        self._filter = terminal.for_display(tty=tty, environ=os.environ)
        self._timestamps = timestamps
        self._open_line = False  # with timestamps: in the middle of a line
        self.at_start = True  # nothing, or a newline, was written last

    def write(self, chunk: Chunk) -> None:
        data = self._stamped(chunk) if self._timestamps else chunk.data
        self._put(self._filter.feed(data))

    def finish(self) -> None:
        self._put(self._filter.finish())

    def wait(self) -> None:
        """Until it takes more."""
        while not output.ready(self._stream):
            self.held_up()

    def mark(self, text: str) -> None:
        """A line of ours, for a CI system to obey."""
        self._put(self._filter.finish())
        self._put(b"" if self.at_start else b"\n")
        self._put(text.encode())

    def _put(self, data: bytes) -> None:
        self._stream.flush()
        view = memoryview(data)
        while view:
            self.wait()
            view = view[os.write(self._stream.fileno(), view[:_PIECE]) :]
        if data:
            self.at_start = data.endswith(b"\n")

    def _stamped(self, chunk: Chunk) -> bytes:
        stamp = datetime.fromtimestamp(chunk.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ ").encode()
        head = b"" if self._open_line else stamp
        self._open_line = not chunk.data.endswith(b"\n")
        body = chunk.data if self._open_line else chunk.data[:-1]
        tail = b"" if self._open_line else b"\n"
        return head + body.replace(b"\n", b"\n" + stamp) + tail
