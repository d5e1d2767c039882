"""Frames from the VM: the same under any split, and never more than they may be."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.model import BuildUsage, Reason, Result
from vmrunner.session.protocol import (
    SLACK,
    EndFrame,
    EventFrame,
    FrameDecoder,
    LogFrame,
    ProtocolViolation,
)


def log(offset: int, data: bytes) -> bytes:
    return b"L %d %d\n" % (offset, len(data)) + data


def event(seq: object, kind: str, offset: int, **data: object) -> bytes:
    body = json.dumps({"seq": seq, "kind": kind, "offset": offset, **data}).encode()
    return b"E %d\n" % len(body) + body


def frames(**options: int) -> FrameDecoder:
    return FrameDecoder(**{"offset": 0, "steps": 2, "log_bytes": 1000, **options})


GOOD = (
    event(0, "container", 0)
    + event(1, "step_started", 0, step=0)
    + log(0, b"hello\n")
    + log(6, b"L 5 5\nE 2\n{}")
    + event(2, "step_ended", 18, step=0, exit_code=3, seconds=1.5, out_of_memory=False)
    + event(3, "ended", 18, reason="exit_code", exit_code=3, message="a\x1b[31m")
)
READ = [
    EventFrame("container", 0, {}),
    EventFrame("step_started", 0, {"step": 0}),
    LogFrame(0, b"hello\n"),
    LogFrame(6, b"L 5 5\nE 2\n{}"),
    EventFrame("step_ended", 18, {"step": 0, "exit_code": 3, "seconds": 1.5}),
    EndFrame(Reason.EXIT_CODE, 3, "a [31m"),
]


@given(cuts=st.lists(st.integers(0, len(GOOD)), max_size=20))
def test_any_split_reads_the_same(cuts: list[int]) -> None:
    parser = frames()
    marks = sorted({0, len(GOOD), *cuts})
    assert [f for a, b in pairwise(marks) for f in parser.feed(GOOD[a:b])] == READ
    assert (parser.offset, parser.seen) == (18, 4)


def lie_of(data: bytes) -> str:
    """Return what is told of what is none of these frames; empty where all are."""
    try:
        list(frames().feed(data))
    except ProtocolViolation as violation:
        return str(violation)
    return ""


@given(junk=st.binary(max_size=300), at=st.integers(0, len(GOOD)))
def test_no_bytes_do_more_than_lie(junk: bytes, at: int) -> None:
    assert lie_of(GOOD[:at] + junk + GOOD[at:]).isprintable()


ESCAPES = st.text("\x1b]52;\x07\n\x9b\u202ea", min_size=1, max_size=50)


@given(
    changes=st.dictionaries(
        st.sampled_from(["kind", "seq", "offset", "step", "exit_code", "reason", "image"]), ESCAPES
    )
)
def test_what_a_lie_is_told_by_is_printable(changes: dict[str, str]) -> None:
    """The error reaches a terminal in a traceback of the user's own program too."""
    fields = {"kind": "step_ended", "seq": 0, "offset": 0, "step": 0, **changes}
    body = json.dumps(fields).encode()
    assert lie_of(b"E %d\n" % len(body) + body).isprintable()


@pytest.mark.parametrize(
    "bad",
    [
        b"x" * 64,
        b"X 1\n",
        b"L 0\n",
        b"L 0 99999999\n",
        b"E 99999\n",
        b"L -1 5\nhello",
        log(1, b"gap"),
        log(0, b"x" * 4) + log(2, b"again"),
        b"E 2\n{}",
        b"E 4\n[1]\n",
        b"E 9000\n" + b"[" * 9000,
        event(1, "container", 0),
        event("\x1b]52;c;ZXZpbA==\x07", "container", 0),
        event(0, "container", 1),
        event(0, "mystery", 0),
        event(0, "step_started", 0, step=2),
        event(0, "step_started", 0, step=True),
        event(0, "step_ended", 0, step=0, exit_code=256, seconds=1),
        event(0, "step_ended", 0, step=0, exit_code=1, seconds="long"),
        event(0, "step_ended", 0, step=0, exit_code=1, seconds=float("nan")),
        event(0, "ended", 0, reason="because"),
        event(0, "ended", 0, reason="exit_code"),
        event(0, "ended", 0, reason=["exit_code"]),
        event(0, "ended", 0, reason="exit_code", exit_code=0, memory_peak=-1),
        event(0, "ended", 0, reason="exit_code", exit_code=0, memory_peak=1.5),
        event(0, "ended", 0, reason="exit_code", exit_code=0, disk_read="much"),
        event(0, "ended", 0, reason="exit_code", exit_code=0, network_sent=(1 << 50) + 1),
        event(0, "ended", 0, reason="exit_code", exit_code=0, cpu_seconds=float("inf")),
        event(0, "ended", 0, reason="exit_code", exit_code=0, cpu_seconds=True),
        log(0, b"x") + event(0, "ended", 0, reason="exit_code", exit_code=0),
    ],
)
def test_a_lie_is_found(bad: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^the VM"):
        list(frames().feed(bad))


def test_events_and_log_are_bounded() -> None:
    many = b"".join(event(seq, "log_full", 0) for seq in range(100))
    with pytest.raises(ProtocolViolation, match="after"):
        list(frames().feed(many))
    much = b"".join(log(at, b"x" * 1000) for at in range(0, SLACK + 2000, 1000))
    with pytest.raises(ProtocolViolation, match="more log"):
        list(frames().feed(much))


def test_a_pull_is_told_without_the_vms_own_words() -> None:
    assert list(frames().feed(event(0, "pulling", 0, image="x", step=7))) == [
        EventFrame("pulling", 0, {})
    ]


def test_what_it_used_is_read_and_the_rest_unknown() -> None:
    usage = {"memory_peak": 5 << 20, "cpu_seconds": 2, "disk_written": 0, "vm_cpu_seconds": 9}
    (end,) = frames().feed(event(0, "ended", 0, reason="exit_code", exit_code=0, **usage))
    assert isinstance(end, EndFrame)
    assert end.end.usage == BuildUsage(memory_peak=5 << 20, cpu_seconds=2.0, disk_written=0)


def test_another_connection_goes_on_in_the_middle() -> None:
    parser = frames()
    list(parser.feed(event(0, "container", 0) + log(0, b"hello") + b"L 5 1000\nha"))
    parser.resume(2)
    assert list(parser.feed(log(2, b"llo") + event(1, "step_started", 5, step=0))) == [
        LogFrame(2, b"llo"),
        EventFrame("step_started", 5, {"step": 0}),
    ]


def test_a_container_that_is_gone_is_no_verdict() -> None:
    """Whatever the VM says beside it: the system that ran it is asked."""
    (frame,) = frames().feed(
        event(0, "ended", 0, reason="container_gone", exit_code=0, message="it hung up")
    )
    assert isinstance(frame, EndFrame)
    end = frame.end
    assert (end.result, end.reason, end.exit_code) == (Result.ERROR, Reason.VM_LOST, None)
    assert (end.container_gone, end.message) == (True, "it hung up")
