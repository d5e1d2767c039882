"""Pages of a log as server-sent events: from one place in it to the next, a bounded part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmrunner.model import Chunk, LogLine
from vmrunner.server.news_stream import NewsPage, event_bytes
from vmrunner.services.documents import log_line_document
from vmrunner.services.log_windows import ReadsChunks

LINE: Final = 1 << 20  # bytes of one line on a stream; the bytes by range have all
#: The end of a line that was cut.
CUT: Final = " … (cut)".encode()
PAGE: Final = 128 << 10  # bytes of a page, up to one line more


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPlace:
    """A place in a log: byte `at` of chunk `seq`, after so many whole lines. `begun`: what came
    before of the line there, and `time` when that began; `cut`: its rest is dropped."""

    seq: int = 1
    at: int = 0
    line: int = 0
    begun: bytes = b""
    time: float = 0.0
    cut: bool = False


def place_after(log: ReadsChunks, line: int) -> LogPlace | None:
    """Return the place where a line ends; None: it has not ended, or nothing follows it yet."""
    if line == 0:
        return LogPlace()
    found = log.read(after_line=line, limit=2)  # the first of two may hold nothing more
    if not found:
        return None
    (whole,) = log.read(after_seq=found[0].seq - 1, limit=1)
    return LogPlace(
        seq=whole.seq, at=len(whole.data) - len(found[0].data), line=max(line, found[0].line)
    )


def page_from(log: ReadsChunks, place: LogPlace) -> NewsPage[LogPlace] | None:
    """Return the events of the lines from a place on, and the place after them; None: no line ends
    there yet, or it is the last and has no end."""
    began = place
    while chunks := log.read(after_seq=place.seq - 1, limit=1):
        lines, place = _lines(chunks[0], place)
        if lines:
            return NewsPage(b"".join(lines), place, len(place.begun))
    return None if place == began else NewsPage(b"", place, len(place.begun))


def last_line(place: LogPlace) -> bytes:
    """Return the event of a last line that has no newline; nothing where there is none."""
    if not place.begun:
        return b""
    return _event(place.line + 1, place.time, place.begun)


def _lines(chunk: Chunk, place: LogPlace) -> tuple[list[bytes], LogPlace]:
    """The lines that end in this chunk from the place on, up to a page of them."""
    data, at, line = chunk.data, place.at, place.line
    begun, cut, time = place.begun, place.cut, place.time if place.begun else chunk.time
    found: list[bytes] = []
    size = 0
    while size < PAGE:
        end = data.find(b"\n", at)
        if end < 0:
            begun, cut = _grown(begun, cut, data[at:])
            since = time if begun else 0.0
            rest = LogPlace(seq=chunk.seq + 1, line=line, begun=begun, time=since, cut=cut)
            return found, rest
        whole, _ = _grown(begun, cut, data[at:end])
        line += 1
        found.append(_event(line, time, whole))
        size += len(found[-1])
        begun, cut, time, at = b"", False, chunk.time, end + 1
    return found, LogPlace(seq=chunk.seq, at=at, line=line)


def _grown(begun: bytes, cut: bool, more: bytes) -> tuple[bytes, bool]:
    """Return a line with what follows of it, and whether its rest is dropped."""
    if cut:
        return begun, True
    if len(begun) + len(more) > LINE:
        return begun + more[: LINE - len(begun)] + CUT, True
    return begun + more, False


def _event(number: int, time: float, whole: bytes) -> bytes:
    # Of its two forms the raw one is told.
    line = LogLine("", whole.removesuffix(b"\r"), number, time)
    return event_bytes("line", log_line_document(line), number)
