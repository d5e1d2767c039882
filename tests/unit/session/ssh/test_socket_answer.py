"""Answers from behind a socket in the VM: whole however they are cut, refused where none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.session.ssh.channel_io import CAPTURE, ConnectionLost
from vmrunner.session.ssh.socket_answer import SocketAnswer


def answer(pieces: list[bytes], code: int, complaint: bytes) -> bytes:
    body = b"".join(b"D %d\n" % len(piece) + piece for piece in pieces)
    return body + b"X %d %d\n" % (code, len(complaint)) + complaint


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=5),
    st.integers(0, 255),
    st.binary(max_size=100),
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_an_answer_is_the_same_however_it_is_cut(
    pieces: list[bytes], code: int, complaint: bytes, cuts: list[int]
) -> None:
    got = bytearray()
    reader = SocketAnswer(got.extend)
    data, turn = answer(pieces, code, complaint), 0
    while data:
        size = cuts[turn % len(cuts)]
        reader.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert bytes(got) == b"".join(pieces)
    assert (reader.exit_code, reader.stderr) == (code, complaint)


@pytest.mark.parametrize(
    "data",
    [b"\n", b"D\n", b"D 0\n", b"D -1\n", b"D 99999999999\n", b"X 256 0\n", b"Y 1\n", b"x" * 100],
)
def test_what_is_no_answer_breaks_the_connection(data: bytes) -> None:
    with pytest.raises(ConnectionLost):
        SocketAnswer(lambda _: None).feed(data)


def test_a_complaint_without_end_is_cut() -> None:
    reader = SocketAnswer(lambda _: None)
    reader.feed(b"X 1 9\n" + b"x" * (2 * CAPTURE))
    assert len(reader.stderr) == CAPTURE
