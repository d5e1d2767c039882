"""The masker against a plain definition of what must be masked, under any split."""

from __future__ import annotations

import base64
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.masking import MASK, Masker, mask, needles

# A small alphabet makes overlaps, repetitions and near misses likely.
LETTERS = st.binary(max_size=80).map(lambda raw: bytes(b"ab\n"[byte % 3] for byte in raw))
SECRETS = st.lists(LETTERS.map(lambda raw: raw[:7]), max_size=4)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(marks)]


def by_definition(text: bytes, secrets: list[bytes]) -> bytes:
    """Mark every byte of every occurrence; what overlaps is one stretch."""
    spans = sorted(
        (at, at + len(needle))
        for needle in needles(secrets)
        for at in range(len(text))
        if text.startswith(needle, at)
    )
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    out, done = b"", 0
    for start, end in merged:
        out += text[done:start] + MASK
        done = end
    return out + text[done:]


@given(text=LETTERS, secrets=SECRETS, cuts=CUTS)
def test_any_split_masks_like_the_whole_text(
    text: bytes, secrets: list[bytes], cuts: list[int]
) -> None:
    masker = Masker(secrets)
    out = b"".join(masker.feed(piece) for piece in pieces(text, cuts)) + masker.finish()
    assert out == by_definition(text, secrets)
    assert masker.held == 0


@given(text=LETTERS, secrets=SECRETS, cuts=CUTS)
def test_a_new_masker_goes_on_where_the_old_one_decided(
    text: bytes, secrets: list[bytes], cuts: list[int]
) -> None:
    """At each cut the connection is lost and all that was held back is fetched again."""
    offset, out = 0, b""
    for cut in sorted(cuts):
        if offset < cut <= len(text):
            masker = Masker(secrets)
            out += masker.feed(text[offset:cut])
            offset = cut - masker.held
    last = Masker(secrets)
    out += last.feed(text[offset:]) + last.finish()
    assert out == by_definition(text, secrets)


def test_a_line_leaves_at_once_when_nothing_of_it_can_become_a_secret() -> None:
    masker = Masker([b"hunter22-and-much-more"])
    assert masker.feed(b"compiling\n") == b"compiling\n"
    assert masker.feed(b"the word is hunt") == b"the word is "
    assert masker.feed(b"ing\n") == b"hunting\n"


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz", b"user:"])
@pytest.mark.parametrize("after", [b"", b"\n", b"@host/path"])
def test_base64_at_every_alignment(before: bytes, after: bytes) -> None:
    secret = b"correct horse battery staple"
    shown = mask(base64.b64encode(before + secret + after), [secret])
    assert MASK in shown
    for at in range(len(secret) - 6):
        assert base64.b64encode(secret[at : at + 6])[:8] not in shown


def test_wrapped_base64_url_encoding_json_and_lines() -> None:
    secret = b'line one of the key / with a slash\nline two & "quotes" ' + bytes(range(65, 91)) * 4
    wrapped = base64.encodebytes(secret)
    assert mask(wrapped, [secret]).replace(MASK, b"").strip() == b""
    assert mask(quote(secret, safe="").lower().encode(), [secret.lower()]) == MASK
    assert mask(b'{"k": "line one of the key / with a slash\\nline', [secret]).startswith(
        b'{"k": "***'
    )
    assert mask(b"> line one of the key / with a slash", [secret]) == b"> ***"


def test_short_values_are_ignored_and_counted() -> None:
    masker = Masker([b"abc", b"", b" x \n", b"long enough"])
    assert masker.ignored == 3
    assert masker.feed(b"abc x ") + masker.finish() == b"abc x "


def test_a_secret_that_repeats_in_itself_takes_no_memory() -> None:
    masker = Masker([b"aaaa"])
    for _ in range(100):
        assert masker.feed(b"a" * 10_000) == b""
    assert masker.held == 1_000_000
    assert len(masker._text) < 16
    assert masker.finish() == MASK
