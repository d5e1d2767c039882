"""What a build's log may do to the place that shows it.

A log is attacker input: bytes in it can move a terminal's cursor over what was printed before, set
its title, fill its clipboard, or command the CI system that vmrunner itself runs under. These
filters take that away and leave the text. Pure; a stream may be cut anywhere.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Protocol


class Filter(Protocol):
    """Bytes in, bytes out. `finish` returns what was held back."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


def for_display(*, tty: bool, environ: Mapping[str, str]) -> Filter:
    """The filter for a stream that somebody or something looks at."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return GitHub()
    if environ.get("GITLAB_CI") == "true":
        return GitLab()
    return Colours() if tty else Plain()


class Plain:
    """Bytes as they are: for a file or a pipe."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


# --- terminals ----------------------------------------------------------------------------------


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()  # after ESC
    SEQUENCE = auto()  # after CSI: parameters, then one final character
    STRING = auto()  # title, clipboard, link, …: until it is terminated, or the line is


_SPECIAL: Final = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_STRING_END: Final = re.compile("[\x07\x18\x1a\x1b\x9c\n]")
_COLOUR: Final = re.compile("[0-9;:]*")
_LONGEST: Final = 64  # characters of a colour sequence
_RESET: Final = b"\x1b[0m"


class Colours:
    """For a terminal: text, newline, carriage return, tab, and SGR sequences (colours).

    Everything else that begins a control sequence goes, in the 7-bit forms and as C1 characters.
    A sequence that never ends swallows at most the rest of its line. Colours end with the log."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = _State.TEXT
        self._parameters = ""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        return self._filter(self._decoder.decode(data)).encode()

    def finish(self) -> bytes:
        rest = self._filter(self._decoder.decode(b"", final=True)).encode()
        return rest + (_RESET if self._coloured else b"")

    def _filter(self, text: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._state is _State.TEXT:
                at = self._text(text, at, out)
            elif self._state is _State.ESCAPE:
                at = self._escape(text, at)
            elif self._state is _State.SEQUENCE:
                at = self._sequence(text, at, out)
            else:
                at = self._string(text, at)
        return "".join(out)

    def _text(self, text: str, at: int, out: list[str]) -> int:
        special = _SPECIAL.search(text, at)
        if special is None:
            out.append(text[at:])
            return len(text)
        out.append(text[at : special.start()])
        self._begin(special.group())
        return special.end()

    def _begin(self, character: str) -> None:
        """Into the state that a control character, or the letter after ESC, begins."""
        self._parameters = ""
        if character == "\x1b":
            self._state = _State.ESCAPE
        elif character in "\x9b[":
            self._state = _State.SEQUENCE
        elif character in "\x90\x98\x9d\x9e\x9fPX]^_":
            self._state = _State.STRING
        else:
            self._state = _State.TEXT

    def _escape(self, text: str, at: int) -> int:
        character = text[at]
        if " " <= character <= "/":  # ESC, intermediates, one final character
            return at + 1
        if character < " " or "\x7f" <= character <= "\x9f":  # a control character cuts it short
            self._state = _State.TEXT
            return at
        self._begin(character)
        return at + 1

    def _sequence(self, text: str, at: int, out: list[str]) -> int:
        character = text[at]
        if not " " <= character <= "~":
            self._state = _State.TEXT
            return at
        if character < "@":
            self._parameters += character if len(self._parameters) <= _LONGEST else ""
            return at + 1
        short = len(self._parameters) <= _LONGEST
        if character == "m" and short and _COLOUR.fullmatch(self._parameters):
            out.append(f"\x1b[{self._parameters}m")
            self._coloured = self._parameters.strip("0;") != ""
        self._state = _State.TEXT
        return at + 1

    def _string(self, text: str, at: int) -> int:
        end = _STRING_END.search(text, at)
        if end is None:
            return len(text)
        self._state = _State.TEXT
        # An ESC begins the terminator `ESC \`, or another sequence; a newline is text.
        return end.start() if end.group() in "\x1b\n" else end.end()


# --- CI systems ---------------------------------------------------------------------------------

_BREAK: Final = "\u200b".encode()  # zero width: the text reads the same, the parser sees none


class _Marks:
    """Puts a zero-width space into every occurrence of some marks."""

    def __init__(self, *marks: bytes) -> None:
        self._marks = marks
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        text = self._held + data
        for mark in self._marks:
            text = text.replace(mark, mark[:1] + _BREAK + mark[1:])
        longest = max(map(len, self._marks))
        self._held = next(
            (
                text[-size:]
                for size in range(min(longest - 1, len(text)), 0, -1)
                if any(mark.startswith(text[-size:]) for mark in self._marks)
            ),
            b"",
        )
        return text[: len(text) - len(self._held)]

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held


class GitLab(_Marks):
    """Under GitLab CI: the build's own section marks do nothing."""

    def __init__(self) -> None:
        super().__init__(b"section_start:", b"section_end:")


# What .NET trims from the start of a line before it looks for a command, as UTF-8.
_SPACE: Final = (
    rb"[\t\x0b\x0c\x1c-\x1f ]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]"
    rb"|\xe2\x81\x9f|\xe3\x80\x80|\xef\xbb\xbf"
)
_LINE: Final = re.compile(rb"((?:" + _SPACE + rb")*)(::)?")
_NEXT_LINE: Final = re.compile(rb"[\r\n]")
_UNFINISHED: Final = re.compile(rb"(?::|\xc2|\xe1\x9a?|\xe2[\x80\x81]?|\xe3\x80?|\xef\xbb?)\Z")


class GitHub:
    """Under GitHub Actions: lines of the build that begin with `::` and every `##[` are text."""

    def __init__(self) -> None:
        self._old_style = _Marks(b"##[")
        self._held = b""
        self._line_begins = True

    def feed(self, data: bytes) -> bytes:
        return self._lines(self._old_style.feed(data), final=False)

    def finish(self) -> bytes:
        return self._lines(self._old_style.finish(), final=True)

    def _lines(self, data: bytes, *, final: bool) -> bytes:
        text = self._held + data
        self._held = b""
        out: list[bytes] = []
        at = 0
        while at < len(text):
            if self._line_begins:
                begin = _LINE.match(text, at)
                assert begin is not None  # it matches nothing too
                out.append(begin.group(1))
                at = begin.end()
                if begin.group(2):
                    out.append(b":" + _BREAK + b":")
                elif not final and _UNFINISHED.fullmatch(text, at):
                    self._held = text[at:]
                    break
                elif at == len(text):
                    break
                self._line_begins = False
            end = _NEXT_LINE.search(text, at)
            stop = end.end() if end else len(text)
            out.append(text[at:stop])
            self._line_begins = end is not None
            at = stop
        return b"".join(out)
