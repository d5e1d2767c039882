from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.ledger.logs import cut
from vmrunner.model import Chunk
from vmrunner.server import log_stream
from vmrunner.server.log_stream import CUT, LogPlace, last_line, page_from, place_after
from vmrunner.server.news_stream import SharedPages
from vmrunner.services.logs import lines


class Log:
    """A log that has these chunks."""

    def __init__(self, *pieces: bytes) -> None:
        self.chunks: list[Chunk] = []
        for n, data in enumerate(pieces):
            before = sum(piece.count(b"\n") for piece in pieces[:n])
            self.chunks.append(
                Chunk(seq=n + 1, attempt=1, time=float(n), offset=0, line=before, data=data)
            )

    def read(self, after_line: int = 0, after_seq: int = 0, limit: int = 100) -> Sequence[Chunk]:
        """As `Logs.read` of the ledger."""
        if after_line:
            ending = [chunk.seq for chunk in self.chunks if chunk.line < after_line]
            after_seq = max(after_seq, (ending[-1] if ending else 1) - 1)
        return cut(self.chunks[after_seq : after_seq + limit], after_line)


def followed(log: Log, after: int = 0) -> list[tuple[int, str, str]]:
    """Number, time and text of all that a follower gets."""
    place, text = place_after(log, after), b""
    while place is not None and (page := page_from(log, place)) is not None:
        place, text = page.after, text + page.data
    text += last_line(place) if place is not None else b""
    found = [
        json.loads(line.removeprefix("data: "))
        for line in text.decode().split("\n")
        if line.startswith("data: ")
    ]
    return [(line["seq"], line["time"], line["text"]) for line in found]


def whole(log: Log) -> list[tuple[int, str, str]]:
    return [
        (line.seq, f"1970-01-01T00:00:{line.time:09.6f}Z", line.raw.decode(errors="replace"))
        for line in lines(log.chunks)
    ]


PIECES = st.lists(st.text("ab\n", max_size=12).map(str.encode), max_size=6)


@given(PIECES, st.integers(1, 300), st.integers(0, 8))
def test_pages_have_the_lines_of_the_log(pieces: list[bytes], page: int, after: int) -> None:
    log = Log(*[piece for piece in pieces if piece])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_stream, "PAGE", page)
        expected = [line[::2] for line in whole(log)]
        assert [line[::2] for line in followed(log)] == expected
        ended = sum(chunk.data.count(b"\n") for chunk in log.chunks)
        expected_lines = expected[after:] if after <= ended else []
        assert [line[::2] for line in followed(log, after)] == expected_lines
        assert [time[:19] for _, time, _ in followed(log)] == [t[:19] for _, t, _ in whole(log)]


def test_a_long_line_is_its_beginning_and_says_so() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_stream, "LINE", 3)
        log = Log(b"abc\nab", b"cd\nabcdef", b"ghi", b"j")
        assert [text for _, _, text in followed(log)] == ["abc", *["abc" + CUT.decode()] * 2]


def test_a_line_without_end_takes_bounded_memory() -> None:
    log, place = Log(*[b"x" * 100_000] * 200), LogPlace()
    tracemalloc.start()
    while (page := page_from(log, place)) is not None:
        place = page.after
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(place.begun) == log_stream.LINE + len(CUT)
    assert peak < 4 * log_stream.LINE


def test_a_page_of_empty_lines_is_bounded() -> None:
    log, place, pages = Log(b"\n" * 20_000), LogPlace(), 0
    while (page := page_from(log, place)) is not None:
        assert len(page.data) < log_stream.PAGE + 200
        place, pages = page.after, pages + 1
    assert (place.line, pages > 5) == (20_000, True)


def test_a_growing_line_is_kept_within_bounds() -> None:
    log, kept = Log(*[b"x" * 1000] * 400), 1 << 20

    async def follow() -> int:
        pages, place = SharedPages(kept), LogPlace()
        with pages.following("b"):
            tracemalloc.start()
            for seq in range(len(log.chunks)):
                shown = Log()
                shown.chunks = log.chunks[: seq + 1]
                page = await pages.page("b", place, partial(page_from, shown, place))
                assert page is not None
                place = page.after
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return held

    assert asyncio.run(follow()) < 2 * kept
