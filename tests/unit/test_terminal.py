"""What the display filters let through, and that a cut anywhere changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.terminal import Colours, Filter, GitHub, GitLab, Plain, for_display


def show(filter_: Filter, *pieces: bytes) -> bytes:
    return b"".join(filter_.feed(piece) for piece in pieces) + filter_.finish()


PARTS = st.sampled_from(
    [
        *(bytes([byte]) for byte in (7, 8, 9, 10, 13, 24, 27, 0x80, 0x90, 0x9B, 0x9C, 0xC2, 0xE2)),
        *(b"a", b"::", b":", b" ", b"##[", b"#", b"[", b"]", b"0", b";", b"m", b"H", b"\\", b"P"),
        *(b"\x1b[31m", b"\x1b]0;t\x07", b"\xc2\x9b", b"\xc2\xa0", b"section_", b"start:", b"end:"),
    ]
)
TEXTS = st.lists(PARTS, max_size=25).map(b"".join)


@pytest.mark.parametrize("make", [Colours, GitHub, GitLab, Plain])
@given(text=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=10))
def test_any_split_shows_the_same(make: Callable[[], Filter], text: bytes, cuts: list[int]) -> None:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert show(make(), *(text[a:b] for a, b in pairwise(marks))) == show(make(), text)


@given(text=TEXTS)
def test_a_terminal_gets_colours_and_text_only(text: bytes) -> None:
    shown = show(Colours(), text).decode()
    rest = re.sub("\x1b\\[[0-9;:]*m", "", shown)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)


@given(text=TEXTS)
def test_no_line_is_a_command_for_github(text: bytes) -> None:
    shown = show(GitHub(), text)
    assert b"##[" not in shown
    for line in re.split("\r|\n", shown.decode("utf-8", "replace")):
        assert not line.lstrip("\ufeff \t\v\f\x1c\x1d\x1e\x1f\x85\xa0\u2003").startswith("::")
    assert shown.replace("\u200b".encode(), b"") == text.replace("\u200b".encode(), b"")


@given(text=TEXTS)
def test_no_section_mark_reaches_gitlab(text: bytes) -> None:
    assert not re.search(rb"section_(start|end):", show(GitLab(), text))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m\n", b"\x1b[1;31mred\x1b[0m\n"),
        (b"\x1b[2J\x1b[Hover\x1b[1A\x1b[?25l", b"over"),
        (b"\x1b]0;title\x07a\x1b]52;c;AAAA\x1b\\b", b"ab"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", b"link"),
        ("\x9b31mred\x9b0m \x9d0;t\x9cx".encode(), b"\x1b[31mred\x1b[0m x"),
        (b"\x1bPq#0\x1b\\sixel \x1bc\x1b(B\x1b#8reset", b"sixel reset"),
        (b"\x1b]0;never ends\nnext line\n", b"\nnext line\n"),
        (b"50%\r100%\n\ttab\x08\x07\x00", b"50%\r100%\n\ttab"),
        (b"caf\xc3\xa9 \xff\n", "café �\n".encode()),
        (b"\x1b[31mleft on", b"\x1b[31mleft on\x1b[0m"),
        (b"\x1b[38:2::1:2:3mx\x1b[m", b"\x1b[38:2::1:2:3mx\x1b[m"),
        (b"\x1b[>4;1m\x1b[" + b"1;" * 100 + b"mx", b"x"),
    ],
)
def test_terminal_sequences(raw: bytes, shown: bytes) -> None:
    assert show(Colours(), raw) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("::set-env name=PATH::x\n", ":\u200b:set-env name=PATH::x\n"),
        ("  \t::error::x\r::warning::y", "  \t:\u200b:error::x\r:\u200b:warning::y"),
        ("\u00a0\u3000::add-mask::x\n", "\u00a0\u3000:\u200b:add-mask::x\n"),
        ("std::vector\n:: \n", "std::vector\n:\u200b: \n"),
        ("text ##[add-path]/evil\n", "text #\u200b#[add-path]/evil\n"),
        (":", ":"),
    ],
)
def test_github_commands(raw: str, shown: str) -> None:
    assert show(GitHub(), raw.encode()).decode() == shown


def test_the_place_decides() -> None:
    assert isinstance(for_display(tty=True, environ={}), Colours)
    assert isinstance(for_display(tty=False, environ={}), Plain)
    assert isinstance(for_display(tty=False, environ={"GITHUB_ACTIONS": "true"}), GitHub)
    assert isinstance(for_display(tty=True, environ={"GITLAB_CI": "true"}), GitLab)
