"""What the display filters let through, and that a cut anywhere changes nothing."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.cli.exit_codes import ExitNow
from vmrunner.cli.log_sink import LogSink
from vmrunner.lib.ci_commands import CiCommandFilter
from vmrunner.lib.terminal import Colours, Filter, Plain, for_display
from vmrunner.model import Chunk
from vmrunner.services.documents import iso
from vmrunner.services.logs import lines
from vmrunner.session.ssh import paramiko_patches
from vmrunner.session.ssh.explanations import explain


def show(filter_: Filter, *pieces: bytes) -> bytes:
    return b"".join(filter_.feed(piece) for piece in pieces) + filter_.finish()


PARTS = st.sampled_from(
    [
        *(bytes([byte]) for byte in (7, 8, 9, 10, 13, 24, 27, 0x80, 0x90, 0x9B, 0x9C, 0xC2, 0xE2)),
        *(b"a", b" ", b"#", b"[", b"]", b"0", b";", b"m", b"H", b"\\", b"P"),
        *(b"\x1b[31m", b"\x1b]0;t\x07", b"\xc2\x9b", b"\xc2\xa0"),
    ]
)
TEXTS = st.lists(PARTS, max_size=25).map(b"".join)


@pytest.mark.parametrize("make", [Colours, Plain])
@given(text=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=10))
def test_any_split_shows_the_same(make: Callable[[], Filter], text: bytes, cuts: list[int]) -> None:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert show(make(), *(text[a:b] for a, b in pairwise(marks))) == show(make(), text)


@given(text=TEXTS)
def test_a_terminal_gets_colours_and_text_only(text: bytes) -> None:
    shown = show(Colours(), text).decode()
    rest = re.sub("\x1b\\[[0-9;:]*m", "", shown)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)


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


def test_a_letters_byte_is_no_control_in_another_encoding() -> None:
    """`Û` is C3 9B, and 9B begins a sequence where bytes are characters; `›` is 9B in cp1252."""
    text = "Û›é€\n".encode()
    assert show(Colours(), text) == text
    assert show(Colours("iso-8859-1"), text) == b"\xdb?\xe9?\n"
    assert show(Colours("cp1252"), text) == b"\xdb?\xe9?\n"
    assert show(Colours("ascii"), text) == b"????\n"


@given(text=TEXTS, encoding=st.sampled_from(["iso-8859-1", "cp1252", "koi8-r", "gbk", "cp437"]))
def test_no_terminal_of_another_encoding_gets_control_characters(
    text: bytes, encoding: str
) -> None:
    assert not re.search(b"[\x80-\x9f]", show(Colours(encoding), text))


def test_colours_end_where_it_is_left() -> None:
    filter_ = Colours()
    assert filter_.feed(b"\x1b[8mhidden \x1b]0;ti") == b"\x1b[8mhidden "
    assert filter_.finish() == b"\x1b[0m"
    assert filter_.finish() == b""
    assert filter_.feed(b"text") == b"text"


def test_a_line_of_a_log_may_be_printed() -> None:
    raw = b"\x1b]52;c;Y3VybCBldmls\x07\x1b[2J\x1b[31mred\xff"
    (line,) = lines([Chunk(seq=1, attempt=1, time=7.0, offset=0, line=0, data=raw + b"\r\n")])
    assert (str(line), f"{line}", line.raw) == ("\x1b[31mred\ufffd\x1b[0m",) * 2 + (raw,)


def test_a_line_is_of_the_time_when_it_began() -> None:
    """As `--timestamps` must say it, which does not know yet when it will end."""
    texts = [b"a\nb", b"c", b"\nd\n", b"e\n"]
    chunks = [
        Chunk(seq=n, attempt=1, time=float(n), offset=0, line=number, data=data)
        for n, (data, number) in enumerate(zip(texts, (0, 1, 1, 3), strict=True))
    ]
    assert [(str(x), x.time) for x in lines(chunks)] == [("a", 0), ("bc", 0), ("d", 2), ("e", 3)]
    with tempfile.TemporaryFile() as file:
        with LogSink(file, tty=False, timestamps=True) as sink:
            for chunk in chunks:
                sink.write(chunk)
        file.seek(0)
        stamped = file.read().decode().splitlines()
    assert stamped == [f"{iso(line.time)} {line}" for line in lines(chunks)]


def test_the_place_decides() -> None:
    assert isinstance(for_display(tty=True, environ={}), Colours)
    assert isinstance(for_display(tty=False, environ={}), Plain)
    for tty in (False, True):
        for name, value in (
            ("GITHUB_ACTIONS", "true"),
            ("GITLAB_CI", "true"),
            ("TF_BUILD", "True"),
            ("TEAMCITY_VERSION", "2026"),
        ):
            assert isinstance(for_display(tty=tty, environ={name: value}), CiCommandFilter)


@pytest.mark.parametrize("why", [KeyboardInterrupt(), ExitNow(130)])
def test_whoever_leaves_a_log_leaves_no_colour_on(why: BaseException) -> None:
    with tempfile.TemporaryFile() as file:
        with (
            suppress(KeyboardInterrupt, ExitNow),
            LogSink(file, tty=True, timestamps=False) as sink,
        ):
            sink.write(Chunk(seq=1, attempt=1, time=0, offset=0, line=0, data=b"\x1b[8mhid"))
            raise why
        file.seek(0)
        assert file.read() == b"\x1b[8mhid\x1b[0m"


def test_what_an_ssh_server_says_is_one_plain_line() -> None:
    message = explain(OSError("Incompatible version (\x1b]52;c;ZXZpbA==\x07\x1b[2J\n instead)"))
    assert message.isprintable()
    assert "Incompatible version" in message


def test_a_refused_channel_is_told_in_words() -> None:
    text = explain(paramiko.ChannelException(2, "Connect failed"))
    assert text == "the VM refused it: connect failed"


def test_our_own_sshd_chooses_no_group_that_costs_seconds() -> None:
    here, server_side = socket.socketpair()
    with here, server_side:
        assert paramiko_patches.transport(here).get_security_options().kex == (
            "curve25519-sha256@libssh.org",
        )
