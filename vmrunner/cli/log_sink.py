"""The sink of a build's log: stdout, or stderr where stdout is data."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final, TextIO

from vmrunner.cli import output
from vmrunner.lib import terminal
from vmrunner.model import Chunk
from vmrunner.services.documents import iso

#: What a pipe that takes anything takes at once.
_PIECE: Final = 4096


class LogSink:
    """The sink of the build's output: its own bytes into a pipe or file; what a terminal or a CI
    system would obey is taken out first. While its reader takes nothing, `held_up` is called
    again and again: a write that blocked would hear of no signal. As a context it leaves no colour
    on, however it is left."""

    def __init__(
        self, stream: BinaryIO, *, tty: bool, timestamps: bool, encoding: str = "utf-8"
    ) -> None:
        self._stream = stream
        self.held_up: Callable[[], object] = lambda: None
        self._filter = terminal.for_display(tty=tty, environ=os.environ, encoding=encoding)
        self._spoken = output.spoken()
        self._timestamps = timestamps
        self._open_line = False  # with timestamps: in the middle of a line
        self.at_start = True  # nothing, or a newline, was written last

    @classmethod
    def to(cls, stream: TextIO, *, timestamps: bool) -> LogSink:
        """Return a sink on stdout or stderr."""
        tty = stream.isatty()
        return cls(stream.buffer, tty=tty, timestamps=timestamps, encoding=stream.encoding)

    def __enter__(self) -> LogSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif rest := self._filter.finish():
            # The end does not wait for a reader that takes nothing.
            with suppress(OSError):
                if output.ready(self._stream, 0):
                    os.write(self._stream.fileno(), rest[-_PIECE:])

    def write(self, chunk: Chunk) -> None:
        self.write_bytes(self._stamped(chunk) if self._timestamps else chunk.data)

    def write_bytes(self, data: bytes) -> None:
        if self._spoken != output.spoken():
            self._spoken = output.spoken()
            self._filter.interrupted()
        self._put(self._filter.feed(data))

    def finish(self) -> None:
        self._put(self._filter.finish())

    def wait(self) -> None:
        """Wait until the reader takes more."""
        while not output.ready(self._stream):
            self.held_up()

    def mark(self, text: str) -> None:
        """A line of ours, for a CI system to obey."""
        self._put(self._filter.finish())
        self._put(b"" if self.at_start else b"\n")
        self._put(text.encode())
        self._open_line = False

    def _put(self, data: bytes) -> None:
        self._stream.flush()
        view = memoryview(data)
        while view:
            self.wait()
            view = view[os.write(self._stream.fileno(), view[:_PIECE]) :]
        if data:
            self.at_start = data.endswith(b"\n")

    def _stamped(self, chunk: Chunk) -> bytes:
        stamp = f"{iso(chunk.time)} ".encode()
        head = b"" if self._open_line else stamp
        self._open_line = not chunk.data.endswith(b"\n")
        body = chunk.data if self._open_line else chunk.data[:-1]
        tail = b"" if self._open_line else b"\n"
        return head + body.replace(b"\n", b"\n" + stamp) + tail
