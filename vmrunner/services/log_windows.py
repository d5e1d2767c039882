"""Windows of a build's log: some lines at any place of it, without what lies before or after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vmrunner.model import Chunk, ChunkPlace

WIDTH: Final = 4 << 10  # bytes of a line in a window, unless more are asked for
READ_BYTES: Final = 32 << 20  # that are read for one window, about
KEPT_BYTES: Final = 4 << 20  # that one has, up to one line more
_CHUNKS: Final = 4  # that are read at once


class ReadsChunks(Protocol):
    """Log of one build, some chunks at a time."""

    def read(
        self, after_line: int = 0, after_seq: int = 0, limit: int = 100
    ) -> Sequence[Chunk]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowLine:
    """A line of a log, counted from 1, with the time of its first byte here. `cut`: it has more
    bytes than `data`."""

    seq: int
    time: float
    data: bytes
    cut: bool = False


def window(log: ReadsChunks, first: int, count: int, *, width: int = WIDTH) -> list[WindowLine]:
    """Return the lines from number `first` on, at most `count`; fewer where the log ends, or where
    they are so long that the rest is to be asked for anew. A last line without its newline is one:
    its build may still add to it."""
    taken = _Taken(first, count, width)
    chunks = log.read(after_line=first - 1, limit=_CHUNKS)
    while chunks and not taken.full:
        for chunk in chunks:
            if not taken.add(chunk):
                break
        if taken.full:
            break
        if taken.skips:  # the rest of a long line: on from where it ends
            chunks = taken.after_line(log)
        else:
            chunks = log.read(after_seq=chunks[-1].seq, limit=_CHUNKS)
    return taken.finish()


class _Taken:
    """Lines that were taken so far, and the beginning of the next."""

    def __init__(self, first: int, count: int, width: int) -> None:
        self._number, self._count, self._width = first, count, width
        self._lines: list[WindowLine] = []
        self._begun, self._size, self._time = b"", 0, 0.0
        self._kept = self._read = 0

    @property
    def full(self) -> bool:
        return (
            len(self._lines) >= self._count or self._kept >= KEPT_BYTES or self._read >= READ_BYTES
        )

    @property
    def skips(self) -> bool:
        return self._size > self._width

    def add(self, chunk: Chunk) -> bool:
        """Take the lines of a chunk; False: no more is wanted of what follows it."""
        self._read += len(chunk.data)
        data, at = chunk.data, 0
        while at < len(data) and not self.full:
            if not self._size:
                self._time = chunk.time
            end = data.find(b"\n", at)
            self._grow(data, at, end if end >= 0 else len(data))
            if end < 0:
                return not self.skips
            self._emit()
            at = end + 1
        return not self.full

    def after_line(self, log: ReadsChunks) -> Sequence[Chunk]:
        """Leave out the rest of the line; return what follows it, none while it has no end."""
        chunks = log.read(after_line=self._number, limit=_CHUNKS)
        if chunks:
            self._emit()
        return chunks

    def finish(self) -> list[WindowLine]:
        if self._size and not self.full:
            self._emit()
        return self._lines

    def _grow(self, data: bytes, at: int, end: int) -> None:
        self._begun += data[at : min(end, at + self._width - len(self._begun))]
        self._size += end - at

    def _emit(self) -> None:
        cut = self._size > len(self._begun)
        text = self._begun if cut else self._begun.removesuffix(b"\r")
        line = WindowLine(seq=self._number, time=self._time, data=text, cut=cut)
        self._lines.append(line)
        self._kept += len(text)
        self._number += 1
        self._begun, self._size = b"", 0


def line_count(log: ReadsChunks, places: Sequence[ChunkPlace]) -> int:
    """Number of lines in the log of these chunks; a last one without its newline counts."""
    if not places:
        return 0
    chunks = log.read(after_seq=places[-1].seq - 1, limit=1)
    if not chunks:  # it was removed meanwhile
        return places[-1].line
    data = chunks[0].data
    return chunks[0].line + data.count(b"\n") + (not data.endswith(b"\n"))
