"""The masker against a plain definition of what must be masked, under any split."""

from __future__ import annotations

import base64
import random
import re
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmrunner.lib.masking import MASK, Masker
from vmrunner.lib.secret_patterns import UNBROKEN, SecretPattern, SecretPatterns, forms
from vmrunner.session.log_relay import LATEST, LogRelay

# A small alphabet makes overlaps, repetitions and near misses likely.
LETTERS = st.binary(max_size=80).map(lambda raw: bytes(b"ab\n"[byte % 3] for byte in raw))
SECRETS = st.lists(LETTERS.map(lambda raw: raw[:7]), max_size=4)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(marks)]


def mask(text: bytes, secrets: list[bytes]) -> bytes:
    masker = Masker(secrets)
    return masker.feed(text) + masker.finish()


def by_definition(text: bytes, secrets: list[bytes]) -> bytes:
    """Mark every byte of every occurrence; what overlaps is one stretch."""
    plain, encoded = forms(secrets)
    found = [
        *(re.escape(needle) for needle in plain),
        *(
            re.escape(needle[:UNBROKEN])
            + b"".join(
                b"(?:\r?\n)?" + re.escape(needle[at : at + 1]) for at in range(4, len(needle))
            )
            for needle in encoded
        ),
    ]
    spans = sorted(
        match.span(1) for needle in found for match in re.finditer(b"(?=(" + needle + b"))", text)
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
@example(text=b"bbbbabbbba", secrets=[b"bbbba"], cuts=[])  # one beside the other
@example(text=b"bbbbabbbba", secrets=[b"bbbba"], cuts=[5])
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


HEX = st.sampled_from(
    [b"\xaa\xaa\xaa\xaa", b"\xab\xcd\xef\x01", b"\x12\x12\x12\x12\x12", b"abcdef"]
)
BROKEN = st.sampled_from([b"\n", b"\r\n", b"\r", b" ", b"", b"", b"", b""])


@st.composite
def wrapped(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Secrets, and pieces of their encodings with breaks anywhere."""
    secrets = draw(st.lists(HEX, min_size=1, max_size=2))
    encoded = sorted(forms(secrets)[1])
    pieces = draw(st.lists(st.sampled_from(encoded), min_size=1, max_size=4))
    cut = draw(st.integers(0, 3))
    letters = b"".join(piece[:-cut] if cut and draw(st.booleans()) else piece for piece in pieces)
    return b"".join(bytes((letter,)) + draw(BROKEN) for letter in letters), secrets


@given(made=wrapped(), cuts=CUTS)
@example(made=(b"ABCD\nE\nF\n0\n1\n" * 2, [b"\xab\xcd\xef\x01"]), cuts=[])
@settings(deadline=None, max_examples=200)
def test_an_encoding_is_masked_over_the_ends_of_lines(
    made: tuple[bytes, list[bytes]], cuts: list[int]
) -> None:
    text, secrets = made
    wanted = by_definition(text, secrets)
    masker = Masker(secrets)
    assert b"".join(map(masker.feed, pieces(text, cuts))) + masker.finish() == wanted
    offset, out = 0, b""
    for cut in sorted(cuts):
        if offset < cut <= len(text):
            masker = Masker(secrets)
            out += masker.feed(text[offset:cut])
            offset = cut - masker.held
    last = Masker(secrets)
    assert out + last.feed(text[offset:]) + last.finish() == wanted


@pytest.mark.parametrize("width", [57, 60, 64, 72, 76])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", b"user:", b"x" * 55])
def test_wrapped_base64_and_hex_of_each_usual_width(width: int, end: bytes, before: bytes) -> None:
    """Of base64 at most three letters stay, where a line ends right after them."""
    secret = random.Random(width).randbytes(160)
    for code in (base64.b64encode(before + secret), (before + secret).hex().encode()):
        text = b"".join(code[at : at + width] + end for at in range(0, len(code), width))
        shown = mask(b"log\n" + text + b"log\n", [secret]).replace(MASK, b"")
        remaining = shown.removeprefix(b"log\n").removesuffix(b"log\n")
        allowed = len(base64.b64encode(before)) if b"=" in code[-2:] or len(code) < 300 else 0
        allowed = allowed or 2 * len(before)
        assert len(re.sub(rb"\s", b"", remaining)) <= allowed + 5, remaining


@pytest.mark.parametrize(
    "needle", [b"aaaa", b"abab", b"abcab", b"abc", b"a" * 50 + b"b", b"ab" * 20]
)
def test_how_a_needle_repeats(needle: bytes) -> None:
    shifts = range(1, len(needle) + 1)
    assert SecretPattern(needle).period == next(n for n in shifts if needle.startswith(needle[n:]))


@pytest.mark.parametrize("kind", ["random", "repeating", "lines"])
def test_a_hostile_log_costs_no_more_than_its_length(kind: str) -> None:
    """Counted in calls, not in seconds: twice the log is at most about twice the work."""
    rng = random.Random(1)
    secret = {
        "random": b"A" + rng.randbytes(4000),
        "repeating": b"A" * 4000 + b"B",
        "lines": b"\n".join(b"key%d: %s" % (n, rng.randbytes(8).hex().encode()) for n in range(99)),
    }[kind]
    needles = SecretPatterns([secret])

    def work(size: int) -> int:
        masker, calls = Masker(needles), 0

        def count(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        hostile = (secret[:2000] + b"A") * (size // 2001)
        was = sys.getprofile()
        sys.setprofile(count)
        try:
            for at in range(0, len(hostile), 997):
                masker.feed(hostile[at : at + 997])
            masker.finish()
        finally:
            sys.setprofile(was)
        return calls

    once, twice = work(50_000), work(100_000)
    assert twice < 3 * once, (once, twice)


def test_small_pieces_do_not_rescan_the_text_held() -> None:
    secret = b"A" + random.Random(2).randbytes(60_000).replace(b"\n", b"-").replace(b"\r", b"-")
    masker = Masker([secret])
    assert masker.feed(secret[:50_000]) == b""
    for at in range(50_000, 50_100):
        assert masker.feed(secret[at : at + 1]) == b""
    assert masker.waits
    assert masker.held == 50_100
    assert masker.decide() == b""
    assert masker.feed(b"no, it is not one") == b""
    assert masker.decide() + masker.finish() == secret[:50_100] + b"no, it is not one"


def test_a_line_that_cannot_become_a_secret_leaves_immediately() -> None:
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


def test_what_waits_is_stored_when_it_is_due() -> None:
    secret = b"A" + random.Random(3).randbytes(9000).replace(b"\n", b"-").replace(b"\r", b"-")
    stored: list[tuple[int, bytes]] = []
    reporter: Any = SimpleNamespace(log=lambda offset, data: stored.append((offset, data)))
    relay = LogRelay(reporter, (secret,), 0)
    relay.feed(secret[:8000])
    relay.feed(b"no secret ")
    assert stored == []
    assert relay.wait() <= LATEST, "it is looked at soon, whatever comes"
    relay.flush()
    assert stored == [(8010 - relay._masker.held, secret[:8000] + b"no secret ")]
    relay.feed(b"text " + secret[:5000])
    relay.abandon()
    assert stored[-1] == (8010 + 5005, b"text " + MASK)


def test_first_words_are_stored_at_once_and_more_is_gathered() -> None:
    stored: list[tuple[int, bytes]] = []
    reporter: Any = SimpleNamespace(log=lambda offset, data: stored.append((offset, data)))
    relay = LogRelay(reporter, (b"password",), 0)
    relay.feed(b"hello\npass")  # what may still become a secret stays here
    assert stored == [(6, b"hello\n")]
    relay.feed(b"word\n")
    assert len(stored) == 1
    assert 0 < relay.wait() <= LATEST
    relay.flush()
    assert b"".join(data for _, data in stored) == b"hello\n" + MASK + b"\n"
