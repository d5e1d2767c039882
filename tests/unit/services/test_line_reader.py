from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from vmrunner.model import Chunk
from vmrunner.services.logs import CUT, LineReader


def chunks(*pieces: bytes) -> list[Chunk]:
    found, line = [], 0
    for n, data in enumerate(pieces):
        found.append(Chunk(seq=n + 1, attempt=1, time=float(n), offset=0, line=line, data=data))
        line += data.count(b"\n")
    return found


def read(reader: LineReader, *pieces: bytes) -> list[bytes]:
    found = [line.raw for chunk in chunks(*pieces) for line in reader.feed([chunk])]
    return found + [line.raw for line in reader.finish()]


@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"")), max_size=8),
    st.integers(0, 6),
)
def test_a_line_is_its_beginning_and_says_so(pieces: list[bytes], most: int) -> None:
    whole = b"".join(pieces).split(b"\n")
    if not whole[-1]:
        whole.pop()
    cut = [line if len(line) <= most else line[:most] + CUT for line in whole]
    assert read(LineReader(most=most), *pieces) == cut
    assert read(LineReader(), *pieces) == whole


def test_a_line_without_end_takes_bounded_memory() -> None:
    reader = LineReader(most=1000)
    tracemalloc.start()
    for chunk in chunks(*[b"x" * 10_000] * 500):
        assert list(reader.feed([chunk])) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6_000_000, "the chunks of this test themselves take 5 MB"
    assert len(next(reader.finish()).raw) == 1000 + len(CUT)
