"""Nothing that a build prints, and nothing of ours that quotes it, is a command for a CI system."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.core.test_scheduling import build
from vmrunner.api.build import Build, raise_for
from vmrunner.api.errors import BuildLost
from vmrunner.cli import output
from vmrunner.cli.log_sink import LogSink
from vmrunner.lib import ci_commands
from vmrunner.lib.ci_commands import CiCommandFilter
from vmrunner.model import BuildState, Chunk, Result
from vmrunner.services.logs import lines

SYSTEMS = {
    "github": {"GITHUB_ACTIONS": "true"},
    "gitlab": {"GITLAB_CI": "true"},
    "azure": {"TF_BUILD": "True"},
    "teamcity": {"TEAMCITY_VERSION": "2026.1"},
}
MARKS = {
    "gitlab": r"section_(start|end):",
    "azure": r"##vso\[|##\[",
    "teamcity": r"##teamcity\[",
}
PARTS = st.sampled_from(
    [
        *(b"::", b":", b"#", b"##", b"[", b"##[", b"##vso[", b"##VSO[", b"##team", b"city[", b"]"),
        *(b"\n", b"\r", b" ", b"\t", b"\0", b"\x1b[0m", b"a", b"add-mask", b"section_", b"start:"),
        *(b"end:", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff", b"\xc2", b"\xa0"),
        *("\u200b".encode(), "\u2003".encode(), "\u00ad".encode(), "é".encode()),
        *("::a\n".encode("utf-16-le"), "\n::a\n".encode("utf-16-be")),
    ]
)
TEXTS = st.lists(PARTS, max_size=20).map(b"".join)

# --- GitHub's runner, as far as it looks for commands --------------------------------------------


def read(data: bytes) -> str:
    """As .NET's StreamReader does, which believes a byte order mark."""
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32-le"),
        (b"\0\0\xfe\xff", "utf-32-be"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.decode("utf-8", "replace")


def seen(text: str, *, icu: bool) -> list[int]:
    """Where the characters are that a comparison looks at: with a culture, not all are."""
    weightless = icu and re.compile("[\0\x1b]")
    return [
        at
        for at, c in enumerate(text)
        if not (weightless and (weightless.match(c) or unicodedata.category(c) == "Cf"))
    ]


def find(text: str, word: str, *, icu: bool) -> int:
    visible = seen(text, icu=icu)
    at = "".join(text[place] for place in visible).find(word)
    return visible[at] if at >= 0 else -1


def obeyed(data: bytes) -> list[str]:
    found = []
    for line in re.split("[\r\n]", read(data)):
        for icu in (False, True):
            trimmed = line.lstrip("\t\v\f \x85\xa0\u2003\u2028")
            if "".join(trimmed[at] for at in seen(trimmed, icu=icu)).startswith("::"):
                end = find(trimmed[2:], "::", icu=icu)
                found += [trimmed[2 : 2 + end].split(" ")[0]] if end >= 0 else []
            at = find(line, "##[", icu=icu)
            end = line.find("]", at)
            found += [line[at + 3 : end].split(" ")[0]] if 0 <= at < end else []
    return [name for name in found if re.fullmatch("[A-Za-z-]+", name)]


# --- filters -------------------------------------------------------------------------------------


def filter_of(system: str) -> CiCommandFilter:
    words = ci_commands.words(SYSTEMS[system])
    assert words is not None
    return CiCommandFilter(words)


def show(filter_: CiCommandFilter, *pieces: bytes) -> bytes:
    return b"".join(filter_.feed(piece) for piece in pieces) + filter_.finish()


@pytest.mark.parametrize("system", SYSTEMS)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=10))
def test_any_split_shows_the_same(system: str, text: bytes, cuts: list[int]) -> None:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = (text[a:b] for a, b in pairwise(marks))
    assert show(filter_of(system), *pieces) == show(filter_of(system), text)


@given(text=TEXTS)
@example(text=b"\xff\xfe" + "::add-mask::x\n".encode("utf-16-le"))
@example(text=b"\xfe\xff" + "::add-mask::x\n".encode("utf-16-be"))
@example(text=b"\0::add-mask::x\n#\0#[add-mask]")
def test_no_line_is_a_command_for_github(text: bytes) -> None:
    shown = show(filter_of("github"), text + b"::add-mask::x\n##[add-mask]x\n")
    assert obeyed(shown) == []
    whole = text.decode("utf-8", "replace") + "::add-mask::x\n##[add-mask]x\n"
    assert shown.decode().replace("\u200b", "") == whole.replace("\u200b", "")


@pytest.mark.parametrize("system", MARKS)
@given(text=TEXTS)
def test_no_mark_reaches_the_others(system: str, text: bytes) -> None:
    shown = show(filter_of(system), text + b"section_end:##vso[x##teamcity[##[")
    assert not re.search(MARKS[system], shown.decode(), re.IGNORECASE)


def test_the_model_of_the_runner_obeys_what_is_a_command() -> None:
    """Else the tests above would show nothing."""
    for text in (b" \t::add-mask::x", b"x ##[add-mask]", b"\xef\xbb\xbf::a::b\n", b"ok\r::a::b"):
        assert obeyed(text)
    assert obeyed(b"\xff\xfe" + "::add-mask::x".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("::set-env name=PATH::x\n", ":\u200b:set-env name=PATH::x\n"),
        ("  \t::error::x\r::warning::y", "  \t:\u200b:error::x\r:\u200b:warning::y"),
        ("std::vector\n:: \n", "std::vector\n:\u200b: \n"),
        ("text ##[add-path]/evil\n", "text #\u200b#[add-path]/evil\n"),
        (":", ":"),
        ("###[", "##\u200b#["),
    ],
)
def test_github_commands(raw: str, shown: str) -> None:
    assert show(filter_of("github"), raw.encode()).decode() == shown


# --- what is written around the log --------------------------------------------------------------


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def chunk(data: bytes) -> Chunk:
    return Chunk(seq=1, attempt=1, time=0.0, offset=0, line=0, data=data)


def sunk(pieces: list[bytes | str | None], *, timestamps: bool = False) -> bytes:
    """What reads a pipe that stdout and stderr share: log (bytes), marks, and talk (None)."""
    with tempfile.TemporaryFile() as file:
        was, sys.stderr = sys.stderr, io.TextIOWrapper(file, "utf-8", write_through=True)
        try:
            with LogSink(file, tty=False, timestamps=timestamps) as sink:
                for piece in pieces:
                    if isinstance(piece, bytes):
                        sink.write(chunk(piece))
                    elif piece is None:
                        output.say("it waits")
                    else:
                        sink.mark(piece)
        finally:
            sys.stderr.detach()
            sys.stderr = was
        file.seek(0)
        return file.read()


@pytest.mark.usefixtures("github")
@given(
    pieces=st.lists(TEXTS | st.just("::endgroup::\n") | st.none(), max_size=6),
    timestamps=st.booleans(),
)
@example(pieces=[b"no end", "::endgroup::\n", b"::add-mask::e\n"], timestamps=False)
@example(pieces=[b"no end", None, b"::add-mask::e\n"], timestamps=False)
@example(pieces=[b":", None, b":add-mask::e\n"], timestamps=False)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_comes_between_begins_no_command(
    pieces: list[bytes | str | None], timestamps: bool
) -> None:
    shown = sunk(pieces, timestamps=timestamps)
    assert set(obeyed(shown)) <= {"endgroup"}


@pytest.mark.usefixtures("github")
def test_a_mark_at_every_offset_leaves_no_command() -> None:
    text = b"no end\n :\xe2\x80\x83::add-mask::x\r::set-env::y\n##[error]x\n#\0#[a]\n\xc2\xa0::z\n"
    for at in range(len(text) + 1):
        for between in ("::endgroup::\n", None):
            assert set(obeyed(sunk([text[:at], between, text[at:]]))) <= {"endgroup"}, at


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], github: None) -> Iterator[Any]:
    return capsys


NAMES = ["##[set-output name=x]true", "::add-mask::x", "a\n::add-mask::x", "\n##[a]"]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_words_are_no_commands(printed: Any, name: str) -> None:
    output.say(f"archive: {name!r} leads outside")
    output.say(name)
    output.print_out(name.replace("\n", " "))
    output.print_path(name)
    column: output.Column[str] = output.Column("name", lambda text: text)
    view: output.ListView[str] = output.ListView(
        kind="n", columns=[column], document=lambda text: {"name": text}
    )
    for form in output.Format:
        output.show(view, [name], form)
    record = logging.LogRecord("vmrunner", logging.WARNING, "", 0, f"x\n{name}", (), None)
    print(output.PlainFormatter().format(record))
    out, err = printed.readouterr()
    assert obeyed(out.encode()) == obeyed(err.encode()) == []


@pytest.mark.parametrize("name", [*NAMES, "section_start:0:x", "##TEAMCITY[x", "\\##vso["])
def test_json_holds_no_mark_and_says_the_same(name: str) -> None:
    text = output.json_text({"name": name})
    assert json.loads(text) == {"name": name}
    assert obeyed(text.encode()) == []
    assert not any(re.search(mark, text, re.IGNORECASE) for mark in MARKS.values())


def test_a_name_with_newline_is_one_line_in_a_pipe(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    output.print_path("a\n::set-output name=x::1")
    output.print_path("plain ü")
    assert capfdbinary.readouterr().out == "a ::set-output name=x::1\nplain ü\n".encode()


@pytest.mark.usefixtures("github")
def test_a_traceback_that_quotes_a_guest_commands_nobody() -> None:
    message = "Incompatible version (\x1b]52;c;ZXZpbA==\x07\x1b[2J\n::add-mask::x) ##[add-mask]"
    events = SimpleNamespace(list=lambda _: [])
    runner: Any = SimpleNamespace(service=SimpleNamespace(ledger=SimpleNamespace(events=events)))
    lost = {"state": BuildState.FINISHED, "result": Result.ERROR, "message": message}
    found = Build(replace(build("b-1"), **lost), runner)
    with pytest.raises(BuildLost) as caught:
        raise_for(found)
    text = "".join(traceback.format_exception(caught.value))
    assert "\x1b" not in text + found.message
    assert obeyed(text.encode()) == obeyed(found.message.encode()) == []


@pytest.mark.usefixtures("github")
def test_printing_a_line_of_a_log_commands_nobody() -> None:
    hostile = b"\x1b]52;c;Y3Vy\x07\x1b[2J::add-mask::x\n##[add-mask]x\n"
    shown = "\n".join(map(str, lines([chunk(hostile)])))
    assert obeyed(shown.encode()) == []
    assert "\x1b" not in shown
