"""A build's log as it is read: chunk by chunk while it grows, or line by line with numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from vmrunner.config import field_checks
from vmrunner.lib import terminal, units
from vmrunner.model import Chunk, LogLine


class ReadsLog(Protocol):
    """Log of one build, here or on a server."""

    def read(self, after_line: int = 0, after_seq: int = 0) -> Sequence[Chunk]:
        """Return the next chunks in order; none when there are none yet. With `after_line` the
        first is cut so that it begins where that line ends."""


class LogReader:
    """A reader of what is new in one build's log since the last call, from line `after` on. Raises
    ConfigError for what is no line's number."""

    def __init__(self, log: ReadsLog, *, after: int = 0) -> None:
        self._log = log
        self._after = field_checks.whole(after, "after", 0, units.MOST_ROWS)
        self._seq = 0

    def new_chunks(self) -> Iterator[Chunk]:
        """All that is stored and was not given yet."""
        while chunks := self.next_chunks():
            yield from chunks

    def next_chunks(self) -> Sequence[Chunk]:
        """The first of them; none when there are none."""
        chunks = self._log.read(self._after, self._seq)
        if chunks:
            self._after = 0  # only where to begin
            self._seq = chunks[-1].seq
        return chunks


class LineReader:
    """Whole lines of chunks that come bit by bit, decoded; bytes that are no UTF-8 become U+FFFD. A
    line's time is that of its first byte, as where it is shown while the rest is still to come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._number, self._time = 0, 0.0

    def feed(self, chunks: Iterable[Chunk]) -> Iterator[LogLine]:
        """The lines that end in these chunks."""
        for chunk in chunks:
            if not self._parts:
                self._number, self._time = chunk.line, chunk.time
            *whole, rest = chunk.data.split(b"\n")
            for piece in whole:
                self._number += 1
                yield _line(b"".join([*self._parts, piece]), self._number, self._time)
                self._parts, self._time = [], chunk.time
            if rest:
                self._parts.append(rest)

    def finish(self) -> Iterator[LogLine]:
        """The last line, if it has no newline."""
        if self._parts:
            yield _line(b"".join(self._parts), self._number + 1, self._time)
            self._parts = []


def lines(chunks: Iterable[Chunk]) -> Iterator[LogLine]:
    """Yield all lines. A last one without its newline comes when the chunks end."""
    reader = LineReader()
    yield from reader.feed(chunks)
    yield from reader.finish()


def _line(data: bytes, number: int, time_: float) -> LogLine:
    raw = data.removesuffix(b"\r")
    return LogLine(terminal.line(raw, os.environ), raw, number, time_)
