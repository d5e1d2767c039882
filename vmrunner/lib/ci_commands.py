"""Words that a CI system would obey, taken out of others' text.

A CI system reads commands out of the output of the jobs that it runs, and so of whatever vmrunner
shows there: a build's log, the names of its files, what a VM complains of. The text stays and reads
the same; a space of no width stands in each command. Pure; a stream may be cut anywhere.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_BREAK: Final = "\u200b"
# What GitHub's runner trims from the start of a line before it looks for `::`, and what it may
# overlook there: .NET's own white space, controls, and characters of no width.
_SPACE: Final = (
    "[\t\x0b\x0c \x00-\x08\x0e-\x1f\x7f-\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3000\ufeff]*"
)
_FIRST: Final = re.compile(rf"\A({_SPACE})::")
_LATER: Final = re.compile(rf"([\r\n]{_SPACE})::")
_FIRST_OPEN: Final = re.compile(rf"\A{_SPACE}:\Z")
_LATER_OPEN: Final = re.compile(rf"[\r\n]{_SPACE}:\Z")
_BLANK: Final = re.compile(rf"{_SPACE}\Z")


@dataclass(frozen=True, slots=True)
class CiSyntax:
    """The commands that one CI system obeys. `marks` count anywhere in a line and in either case;
    with `commands` so does a line that begins with `::`."""

    marks: tuple[str, ...] = ()
    commands: bool = False

    def __or__(self, other: CiSyntax) -> CiSyntax:
        return CiSyntax(self.marks + other.marks, self.commands or other.commands)


_GITHUB: Final = CiSyntax(("##[",), commands=True)
_GITLAB: Final = CiSyntax(("section_start:", "section_end:"))
_AZURE: Final = CiSyntax(("##vso[", "##["))
_TEAMCITY: Final = CiSyntax(("##teamcity[",))
_ANY: Final = re.compile(
    "|".join(map(re.escape, (_GITHUB | _GITLAB | _AZURE | _TEAMCITY).marks)), re.IGNORECASE
)


def words(environ: Mapping[str, str]) -> CiSyntax | None:
    """Return the syntax that the reader of this process's output obeys; None outside of CI."""
    found = [
        system
        for variable, value, system in (
            ("GITHUB_ACTIONS", "true", _GITHUB),
            ("GITLAB_CI", "true", _GITLAB),
            ("TF_BUILD", "true", _AZURE),
        )
        if environ.get(variable, "").lower() == value
    ]
    if environ.get("TEAMCITY_VERSION"):
        found.append(_TEAMCITY)
    if not found:
        return None
    both = found[0]
    for system in found[1:]:
        both |= system
    return both


def text(whole: str, environ: Mapping[str, str]) -> str:
    """Text of ours that quotes another's, whole lines of it."""
    commands = words(environ)
    return whole if commands is None else CiCommandFilter(commands).whole(whole)


def json(document: str) -> str:
    """A JSON document of the same value that holds no mark of any system. No line of one begins
    with a command."""
    return _ANY.sub(lambda mark: f"\\u{ord(mark[0][0]):04x}{mark[0][1:]}", document)


class CiCommandFilter:
    """Bytes in, bytes out: UTF-8, since the runner's guess of another encoding would make other
    text of them."""

    def __init__(self, obeyed: CiSyntax) -> None:
        self._marks = tuple(mark.lower() for mark in obeyed.marks)
        self._commands = obeyed.commands
        self._found = re.compile("|".join(map(re.escape, self._marks)), re.IGNORECASE)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._blank = True  # nothing but space in this line so far

    def feed(self, data: bytes) -> bytes:
        read = self._held + self._decoder.decode(data)
        cut = len(read) - self._open(read)
        self._held = read[cut:]
        return self._broken(read[:cut]).encode()

    def finish(self) -> bytes:
        """The text that was held back. Whatever comes next begins a line: ours comes between."""
        read = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        self._decoder.reset()
        rest = self._broken(read).encode()
        self._blank = True
        return rest

    def interrupted(self) -> None:
        """Note that something else was written where this goes: a line may begin here."""
        self._blank = True

    def whole(self, read: str) -> str:
        """Lines that are complete."""
        return self._broken(read)

    def _open(self, read: str) -> int:
        """The number of characters at the end that may still become a mark."""
        if self._commands and (
            _LATER_OPEN.search(read) or (self._blank and _FIRST_OPEN.match(read))
        ):
            return 1
        longest = max(map(len, self._marks)) - 1
        return next(
            (
                size
                for size in range(min(longest, len(read)), 0, -1)
                if any(mark.startswith(read[-size:].lower()) for mark in self._marks)
            ),
            0,
        )

    def _broken(self, read: str) -> str:
        if not read:
            return read
        read = self._found.sub(lambda mark: mark[0][0] + _BREAK + mark[0][1:], read)
        if self._commands:
            if self._blank:
                read = _FIRST.sub(rf"\1:{_BREAK}:", read)
            read = _LATER.sub(rf"\1:{_BREAK}:", read)
        last = max(read.rfind("\n"), read.rfind("\r")) + 1
        self._blank = (bool(last) or self._blank) and _BLANK.match(read, last) is not None
        return read
