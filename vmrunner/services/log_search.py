"""Search in a build's log: the numbers of the lines that hold a text, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmrunner.lib import turns
from vmrunner.services import log_text
from vmrunner.services.log_windows import ReadsChunks

SECONDS: Final = 1.0  # of one part, about
BYTES: Final = 64 << 20  # … that it looks at
LINES: Final = 10_000  # … that it finds, up to those of one chunk more
_PIECE: Final = 64 << 10  # bytes of one turn: the interpreter is held while they are looked at
_LINE: Final = 1 << 20  # bytes of a line that are kept until it ends; a longer one in parts


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Numbers of lines, in order. `searched`: so many lines were looked at, counted from the log's
    first; `done`: those are all that there are."""

    lines: list[int]
    searched: int
    done: bool


def search(
    log: ReadsChunks, text: str, after: int = 0, *, clock: Callable[[], float] = time.monotonic
) -> FoundLines:
    """Find lines after number `after` that have `text` in what is shown of them; the case of ASCII
    letters does not count. Bounded: what is not `done` goes on after `searched`."""
    looking = _Looking(text.encode("utf-8", "surrogateescape").lower(), after)
    until, size = clock() + SECONDS, 0
    chunks = log.read(after_line=after, limit=2)  # the first may hold nothing after that line
    while chunks:
        for chunk in chunks:
            for at in range(0, len(chunk.data), _PIECE):
                with turns.costly():
                    looking.feed(chunk.data[at : at + _PIECE])
            size += len(chunk.data)
        over = clock() >= until or size >= BYTES or len(looking.lines) >= LINES
        if over and looking.searched > after:  # else the same would be asked for again
            return FoundLines(looking.lines, looking.searched, False)
        chunks = log.read(after_seq=chunks[-1].seq, limit=1)
    looking.finish()
    return FoundLines(looking.lines, looking.searched, True)


class _Looking:
    def __init__(self, needle: bytes, after: int) -> None:
        self._needle = needle
        self._rest = b""  # of a line that has not ended
        self._hit = False  # that line was found already
        self.lines: list[int] = []
        self.searched = after  # whole lines

    def feed(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if end:
            self._look(self._rest + data[:end])
            self._rest, self._hit = data[end:], False
        else:
            self._rest += data
        if len(self._rest) > _LINE:
            self._hit = self._hit or self._needle in _shown(self._rest)
            self._rest = self._rest[1 - len(self._needle) :] if len(self._needle) > 1 else b""

    def finish(self) -> None:
        """Look at a last line that has no newline."""
        if self._rest or self._hit:
            self._look(self._rest + b"\n")

    def _look(self, data: bytes) -> None:
        """Look at whole lines."""
        text = _shown(data)
        first = self.searched + 1
        if self._hit:
            self.lines.append(first)
            self._hit = False
        at, line = 0, first
        while (found := text.find(self._needle, at)) >= 0:
            line += text.count(b"\n", at, found)
            if not self.lines or self.lines[-1] != line:
                self.lines.append(line)
            at = text.find(b"\n", found)
        self.searched += data.count(b"\n")


def _shown(data: bytes) -> bytes:
    return log_text.plain(data).lower()
