"""A build's log as it is read: chunk by chunk while it grows, or line by line with numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vmrunner.lib import terminal
from vmrunner.model import Chunk, LogLine

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


class LogReader:
    """A reader of what is new in one build's log since the last call, from line `after` on."""

    def __init__(self, ledger: Ledger, build: str, *, after: int = 0) -> None:
        self._ledger = ledger
        self._build = build
        self._after = after
        self._seq = 0

    def new_chunks(self) -> Iterator[Chunk]:
        """All that is stored and was not given yet."""
        while chunks := self.next_chunks():
            yield from chunks

    def next_chunks(self) -> Sequence[Chunk]:
        """The first of them; none when there are none."""
        chunks = self._ledger.logs.read(
            self._build, after_line=self._after, after_seq=self._seq, limit=100
        )
        if chunks:
            self._after = 0  # only where to begin
            self._seq = chunks[-1].seq
        return chunks


def lines(chunks: Iterable[Chunk]) -> Iterator[LogLine]:
    """Whole lines, decoded; bytes that are no UTF-8 become U+FFFD. A last line without its newline
    comes when the chunks end. A line's time is that of its first byte, as where it is shown while
    the rest of it is still to come."""
    parts: list[bytes] = []
    number, time_ = 0, 0.0
    for chunk in chunks:
        if not parts:
            number, time_ = chunk.line, chunk.time
        *whole, rest = chunk.data.split(b"\n")
        for piece in whole:
            number += 1
            yield _line(b"".join([*parts, piece]), number, time_)
            parts, time_ = [], chunk.time
        if rest:
            parts.append(rest)
    if parts:
        yield _line(b"".join(parts), number + 1, time_)


def _line(data: bytes, number: int, time_: float) -> LogLine:
    raw = data.removesuffix(b"\r")
    return LogLine(terminal.line(raw, os.environ), raw, number, time_)
