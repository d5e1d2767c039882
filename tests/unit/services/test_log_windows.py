"""Windows, search and outline of a log: whatever its chunks, they are those of the whole text."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.ledger.logs import cut
from vmrunner.model import BuildEvent, Chunk, ChunkPlace
from vmrunner.services import log_search, log_windows
from vmrunner.services.log_outline import sections

PIECES = st.lists(st.text("ab\n", max_size=8).map(str.encode), max_size=12)


class Log:
    """Chunks in memory; `read_bytes` is what was read of them."""

    def __init__(self, pieces: Sequence[bytes], attempts: Sequence[int] = ()) -> None:
        self.chunks: list[Chunk] = []
        self.read_bytes = line = offset = 0
        for seq, data in enumerate(filter(None, pieces), start=1):
            offset += len(data)
            attempt = attempts[seq - 1] if attempts else 1
            self.chunks.append(
                Chunk(
                    seq=seq, attempt=attempt, time=float(seq), offset=offset, line=line, data=data
                )
            )
            line += data.count(b"\n")

    def read(self, after_line: int = 0, after_seq: int = 0, limit: int = 100) -> list[Chunk]:
        after = after_seq
        if after_line > 0:
            before = [chunk.seq for chunk in self.chunks if chunk.line < after_line]
            after = max(after, (before[-1] if before else 1) - 1)
        found = [chunk for chunk in self.chunks if chunk.seq > after][:limit]
        self.read_bytes += sum(len(chunk.data) for chunk in found)
        return cut(found, after_line)

    def places(self) -> list[ChunkPlace]:
        return [ChunkPlace(c.seq, c.attempt, c.offset, c.line, len(c.data)) for c in self.chunks]


def lines_of(pieces: Sequence[bytes]) -> list[bytes]:
    text = b"".join(pieces)
    return text.removesuffix(b"\n").split(b"\n") if text else []


@given(PIECES, st.integers(1, 20), st.integers(1, 20), st.integers(1, 5))
def test_a_window_has_the_lines_of_the_whole_log(
    pieces: list[bytes], first: int, count: int, width: int
) -> None:
    log, whole = Log(pieces), lines_of(pieces)
    found = log_windows.window(log, first, count, width=width)
    wanted = whole[first - 1 :][:count]
    assert [line.data for line in found] == [line[:width] for line in wanted]
    assert [line.cut for line in found] == [len(line) > width for line in wanted]
    assert [line.seq for line in found] == list(range(first, first + len(wanted)))
    assert log_windows.line_count(log, log.places()) == len(whole)


@given(PIECES, st.sampled_from(["a", "ab", "B", "ba"]), st.integers(0, 12))
def test_a_search_finds_each_line_once(pieces: list[bytes], text: str, after: int) -> None:
    whole = lines_of(pieces)
    wanted = [n for n, line in enumerate(whole, 1) if text.lower().encode() in line and n > after]
    found: list[int] = []
    clock = itertools.count(step=0.7).__next__  # each part ends after two looks
    part = log_search.search(Log(pieces), text, after, clock=clock)
    found += part.lines
    while not part.done:
        part = log_search.search(Log(pieces), text, part.searched, clock=clock)
        found += part.lines
    assert found == wanted


def test_a_search_sees_what_is_shown() -> None:
    log = Log([b"\x1b[31merr\x1b[0", b"mor\x1b]0;title\x07s\n31m\n", b"ERRORS: \xc3\xa4\n"])
    assert log_search.search(log, "errors").lines == [1, 3]
    assert log_search.search(log, "31m").lines == [2]
    assert log_search.search(log, "title").lines == []
    assert log_search.search(log, "ä").lines == [3]


def test_a_line_without_end_costs_little_memory() -> None:
    log = Log([b"x" * (1 << 18)] * 40 + [b"needle", b" and more\nneedle\n"])
    tracemalloc.start()
    found = log_search.search(log, "needle")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.lines, found.searched, found.done) == ([1, 2], 2, True)
    assert peak < 6 << 20, "of 10 MiB"


def test_a_search_ends_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "BYTES", 100)
    log = Log([b"needle\n" * 10] * 100)
    found = log_search.search(log, "needle")
    assert (found.lines, found.searched, found.done) == (list(range(1, 21)), 20, False), (
        "two chunks"
    )


def test_the_rest_of_long_lines_is_not_read() -> None:
    giant = [b"x" * (1 << 18)] * 64
    log = Log([b"first\n", *giant, b"\nthird\n", *giant, b"\n"])
    found = log_windows.window(log, 1, 10)
    assert [(line.seq, line.cut) for line in found] == [
        (1, False), (2, True), (3, False), (4, True),
    ]  # fmt: skip
    assert len(found[1].data) == log_windows.WIDTH
    assert log.read_bytes < 16 << 18


def test_a_window_has_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_windows, "KEPT_BYTES", 100)
    log = Log([b"x" * 9 + b"\n"] * 100)
    assert len(log_windows.window(log, 1, 50)) == 12


def step(kind: str, number: int, offset: int, seq: int, **more: int) -> BuildEvent:
    data = {"step": number, "offset": offset, **more}
    return BuildEvent(seq=seq, time=float(seq), kind=kind, data=data)


def test_sections_are_where_steps_begin() -> None:
    log = Log([b"boot\n", b"one\none\n", b"two\n", b"again\n"], attempts=[1, 1, 1, 2])
    events = [
        step("step_started", 0, 5, 1),
        step("step_ended", 0, 13, 2, exit_code=0),
        step("step_started", 1, 13, 3),
        BuildEvent(seq=4, time=4.0, kind="retry"),
        step("step_started", 0, 0, 5),
        step("step_started", 1, 99, 6),
    ]
    found = sections(events, log.places(), 5)
    assert [(s.run and (s.run.attempt, s.run.index), s.first, s.last) for s in found] == [
        (None, 1, 1), ((1, 0), 2, 3), ((1, 1), 4, 4), ((2, 0), 5, 5), ((2, 1), 6, 5),
    ]  # fmt: skip


def test_offsets_that_lie_leave_the_order() -> None:
    log = Log([b"one\n", b"two\n"])
    events = [step("step_started", 0, 4, 1), step("step_started", 1, 0, 2)]
    found = sections(events, log.places(), 2)
    assert [(s.first, s.last) for s in found] == [(1, 1), (2, 1), (2, 2)]


def test_a_log_of_one_step_has_no_other_section() -> None:
    events = [step("step_started", 0, 0, 1)]
    assert [(s.first, s.last) for s in sections(events, Log([b"a\n"]).places(), 1)] == [(1, 1)]
    assert [(s.first, s.last) for s in sections(events, [], 0)] == [(1, 0)]
    assert sections([], [], 0) == []
