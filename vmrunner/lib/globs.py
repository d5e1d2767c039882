"""Globs of artifacts, held against paths.

They mean what `guest/artifact_globs.py` finds by them in the VM, whose word is not taken for it:
nothing else is taken from there, and nothing that the host's own tools would obey unless a glob
names it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

from vmrunner.errors import ConfigError

_CONTROLS: Final = frozenset({"Cc", "Zl", "Zp"})  # a line's end in a name is one too
_NEVER: Final = (
    (re.compile(r"\{[^{}/]*,[^{}/]*\}"), "braces are letters here: name each glob on its own"),
    (re.compile(r"\A~"), "~ is a letter here: globs are relative to /work"),
    (re.compile(r"\A!"), "! is a letter here: globs only add; name what is wanted"),
    (
        re.compile(r"\A(?:[^[]|\[!?+\]?+[^]/]*\])*+\["),
        "its [ is never closed: write [[] for the letter itself",
    ),
)


def check(glob: str, field: str = "artifact") -> str:
    """The glob. Raises ConfigError on one that can match nothing, or not what it seems to."""
    if not glob or glob.startswith("/") or "\0" in glob or ".." in glob.split("/"):
        raise ConfigError(
            f"{field}: {glob!r} is not below the work directory",
            hint="a glob relative to it, such as dist/*.whl",
        )
    for pattern, why in _NEVER:
        if pattern.search(glob):
            raise ConfigError(f"{field}: {glob!r} would match nothing", hint=why)
    return glob


def _risky(part: str) -> bool:
    return part.lower() == ".git" or any(unicodedata.category(c) in _CONTROLS for c in part)


class Globs:
    """Some globs, as one question."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._all = [_Glob(glob) for glob in globs]

    def match(self, path: str, *, directory: bool) -> bool:
        """True if a glob matches this path, or a directory that it lies below. `directory` says
        that the path is one itself, or a link that may lead to one."""
        return any(glob.match(path, directory=directory) for glob in self._all)

    def risk(self, path: str) -> str:
        """Return the part of this path that nobody gets who did not name it letter by letter, and
        why; mostly an empty text."""
        parts = path.split("/")
        for number, part in enumerate(parts, start=1):
            if _risky(part) and not any(part in glob.names for glob in self._all):
                why = "is git's own" if part.lower() == ".git" else "has a control character"
                return f"{'/'.join(parts[:number])!r} {why}"
        return ""


class _Glob:
    def __init__(self, glob: str) -> None:
        parts = [part for part in glob.split("/") if part not in ("", ".")]
        self.names = frozenset(parts)
        self._directories = glob.endswith("/")  # alone are meant
        none = glob.startswith("/") or ".." in parts or not parts
        self._parts = ["/"] if none else parts  # no name is that
        self._tests = [re.compile(translate(part)).match for part in self._parts]

    def match(self, path: str, *, directory: bool) -> bool:
        *above, last = path.split("/")
        end = len(self._parts)
        at = self._skipping({0})  # where in the glob we may be
        for component in above:
            at = self._step(at, component)
            if end in at:
                return True
        if directory:
            return end in self._step(at, last)
        # Without what a `**` at the end that stands for nothing leads to: a directory was before.
        return not self._directories and end - 1 in at and self._fits(end - 1, last)

    def _step(self, at: set[int], component: str) -> set[int]:
        fitting = (place for place in at if place < len(self._parts))
        return self._skipping(
            {
                place if self._parts[place] == "**" else place + 1
                for place in fitting
                if self._fits(place, component)
            }
        )

    def _fits(self, place: int, component: str) -> bool:
        return self._parts[place] == "**" or self._tests[place](component) is not None

    def _skipping(self, at: set[int]) -> set[int]:
        """Add the places behind each `**` there, which may stand for nothing."""
        found = set(at)
        for place in at:
            while place < len(self._parts) and self._parts[place] == "**":
                place += 1
                found.add(place)
        return found
