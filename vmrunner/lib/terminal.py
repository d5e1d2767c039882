"""Filters for a build's log, before a terminal shows it.

A log is attacker input: bytes in it can move a terminal's cursor over what was printed before, set
its title, fill its clipboard, or command the CI system that vmrunner runs under (`ci_commands`).
These filters take that away and leave the text. Pure; a stream may be cut anywhere.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Protocol

from vmrunner.lib import ci_commands


class Filter(Protocol):
    """Bytes in, bytes out. `finish` returns what was held back; more may come after it.
    `interrupted` is told when something else was written between."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...

    def interrupted(self) -> None: ...


def for_display(*, tty: bool, environ: Mapping[str, str], encoding: str = "utf-8") -> Filter:
    """The filter for a stream that people or a CI system look at."""
    obeyed = ci_commands.words(environ)
    if obeyed is not None:
        return ci_commands.CiCommandFilter(obeyed)
    return Colours(encoding) if tty else Plain()


def line(data: bytes, environ: Mapping[str, str]) -> str:
    """One line of a log, safe to print."""
    text = data.decode(errors="replace")
    if _SPECIAL.search(text):
        colours = Colours()
        text = (colours.feed(data) + colours.finish()).decode()
    return ci_commands.text(text, environ)


class Plain:
    """Bytes as they are: for a file or a pipe."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""

    def interrupted(self) -> None:
        pass


# --- terminals ----------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Return a line without anything that a terminal would obey: it may come from a guest."""
    return "".join(c if c.isprintable() else " " if c in "\r\n\t" else "\ufffd" for c in text)


def encoded(text: str, encoding: str) -> bytes:
    """Text for a terminal of that encoding; `?` is what it cannot show, or would obey."""
    if codecs.lookup(encoding).name == "utf-8":
        return text.encode()
    data = text.encode(encoding, "replace")
    if not _OBEYED.search(data):
        return data
    letters = (letter.encode(encoding, "replace") for letter in text)
    return b"".join(b"?" if _OBEYED.search(letter) else letter for letter in letters)


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()  # after ESC
    SEQUENCE = auto()  # after CSI: parameters, then one final character
    STRING = auto()  # title, clipboard, link, …: until it is terminated, or the line is


_SPECIAL: Final = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_STRING_END: Final = re.compile("[\x07\x18\x1a\x1b\x9c\n]")
_COLOUR: Final = re.compile("[0-9;:]*")
_OBEYED: Final = re.compile(b"[\x80-\x9f]")
_LONGEST: Final = 64  # characters of a colour sequence
_RESET: Final = b"\x1b[0m"


class Colours:
    """A filter for a terminal: it passes text, newline, carriage return, tab, and SGR sequences
    (colours).

    Everything else that begins a control sequence goes, in the 7-bit forms and as C1 characters.
    A sequence that never ends swallows at most the rest of its line. Colours end with the log. In
    another encoding than UTF-8 a letter's byte may be a C1 character: then it goes too.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = _State.TEXT
        self._parameters = ""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        return encoded(self._filter(self._decoder.decode(data)), self._encoding)

    def finish(self) -> bytes:
        rest = encoded(self._filter(self._decoder.decode(b"", final=True)), self._encoding)
        coloured, self._coloured = self._coloured, False
        self._decoder.reset()
        self._state = _State.TEXT
        return rest + (_RESET if coloured else b"")

    def interrupted(self) -> None:
        pass

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
