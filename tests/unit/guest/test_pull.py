"""Docker's answer to a wish for an image: the same under any split, and never much memory."""

from __future__ import annotations

import json
from itertools import pairwise
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.guest import pull
from vmrunner.guest.pull import PullAnswer

DIGEST = "sha256:" + "0" * 64


def line(**word: object) -> bytes:
    return json.dumps(word).encode() + b"\r\n"


HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
GOOD = HEAD + line(status="Pulling from a/b", id="1") + line(status="Downloading", progress="[=>")
BAD = GOOD + line(errorDetail={"message": "toomany\nrequests:  slow down"}, error="toomany")


@pytest.mark.parametrize(
    ("name", "image", "tag"),
    [
        ("debian", "debian", "latest"),
        ("debian:trixie", "debian", "trixie"),
        ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
        ("localhost:5000/a/b:1.0", "localhost:5000/a/b", "1.0"),
        (f"a/b@{DIGEST}", f"a/b@{DIGEST}", None),
        (f"host.org:5000/a:1@{DIGEST}", f"host.org:5000/a@{DIGEST}", None),
    ],
)
def test_a_name_is_asked_for_as_docker_wants_it(name: str, image: str, tag: str | None) -> None:
    query = pull.query(name)
    assert parse_qs(query) == {"fromImage": [image]} | ({"tag": [tag]} if tag else {})
    assert "/" not in query
    assert ":" not in query


@given(cuts=st.lists(st.integers(0, len(BAD)), max_size=20))
def test_any_split_reads_the_same(cuts: list[int]) -> None:
    answer = PullAnswer()
    for a, b in pairwise(sorted({0, len(BAD), *cuts})):
        answer.feed(BAD[a:b])
    assert (answer.status, answer.complaint) == (200, "toomany requests: slow down")


@given(junk=st.binary(max_size=300), at=st.integers(0, len(BAD)))
def test_no_bytes_break_it(junk: bytes, at: int) -> None:
    answer = PullAnswer()
    answer.feed(BAD[:at] + junk + BAD[at:] + b"\n")
    assert len(answer.complaint) <= pull.WORDS


def test_what_is_refused_at_once_says_so_in_its_body() -> None:
    answer = PullAnswer()
    answer.feed(b"HTTP/1.0 404 Not Found\r\n\r\n" + line(message="pull access denied"))
    assert (answer.status, answer.complaint) == (404, "pull access denied")


@pytest.mark.parametrize("piece", [b"x" * 4096, b'{"status":"' + b"x" * 4096])
def test_an_endless_line_takes_no_memory_and_hides_no_other(piece: bytes) -> None:
    answer = PullAnswer()
    answer.feed(HEAD)
    for _ in range(1000):
        answer.feed(piece)
        assert len(answer._buffer) <= pull.LINE
    answer.feed(b'{"error":"part of the line"}\n' + line(error="the next one"))
    assert answer.complaint == "the next one"


def test_a_complaint_is_bounded() -> None:
    answer = PullAnswer()
    answer.feed(HEAD + line(error="no " * 10_000))
    assert len(answer.complaint) == pull.WORDS
