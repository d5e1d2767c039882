"""Globs of artifacts, held against paths.

They mean what `guest/artifact_globs.py` finds by them in the VM, whose word is not taken for it:
nothing else is taken from there, and nothing that the host's own tools would obey unless a glob
names it.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import turns

GLOB_CHARACTERS: Final = 512  # characters of a glob
#: Characters of all globs of a build, and parts in them that are no plain names: what the VM names
#: is held against each of these.
GLOBS_CHARACTERS: Final = 64 << 10
WILDCARDS: Final = 256
#: Seconds of the processor that the paths of one archive may take, whatever the VM names.
MATCH_SECONDS: Final = 20.0

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
    if len(glob) > GLOB_CHARACTERS:
        raise ConfigError(
            f"{field}: {glob[:40]!r}… has {len(glob)} characters, and {GLOB_CHARACTERS} may be",
            hint="name a directory above, or a shorter glob",
        )
    if not glob or glob.startswith("/") or "\0" in glob or ".." in glob.split("/"):
        raise ConfigError(
            f"{field}: {glob!r} is not below the work directory",
            hint="a glob relative to it, such as dist/*.whl",
        )
    for pattern, why in _NEVER:
        if pattern.search(glob):
            raise ConfigError(f"{field}: {glob!r} would match nothing", hint=why)
    return glob


def check_all(globs: Sequence[str], field: str = "artifacts") -> None:
    """Raises ConfigError for more globs than what a VM names could be held against."""
    if (size := sum(map(len, globs))) > GLOBS_CHARACTERS:
        raise ConfigError(
            f"{field}: the globs have {size} characters, and {GLOBS_CHARACTERS} may be",
            hint="put what is wanted into a directory, and name that",
        )
    wild = sum(_wild(part) for glob in globs for part in _parts(glob))
    if wild > WILDCARDS:
        raise ConfigError(
            f"{field}: {wild} parts of the globs have wildcards, and {WILDCARDS} may together",
            hint="put what is wanted into a directory, and name that",
        )


def _parts(glob: str) -> list[str]:
    """Return the parts of a glob; several `**` after each other are one."""
    found: list[str] = []
    for part in glob.split("/"):
        if part not in ("", ".") and not (part == "**" and found[-1:] == ["**"]):
            found.append(part)
    return found


def _wild(part: str) -> bool:
    return part != "**" and any(sign in part for sign in "*?[")


#: A directory is one of git's, without a `.git`, where such a file is in it: nothing else is in all
#: of them. The command that its `config` names runs when a shell's prompt asks for its state.
_HEAD: Final = "head"
#: Directories, or files that lead to one, whose configuration is obeyed by who only looks at them.
_OBEYED: Final = {".git": "git's", "git~1": "git's", ".hg": "Mercurial's", ".jj": "Jujutsu's"}


def _plain(part: str) -> str:
    """Return a name as some file systems take it: for them large letters are small ones, and a
    space or dot at the end and a character that is not seen are none."""
    seen = (c for c in part if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", "".join(seen)).casefold().rstrip(" .")


def _risk(part: str, *, file: bool) -> str:
    if any(unicodedata.category(c) in _CONTROLS for c in part):
        return "has a control character"
    name = _plain(part)
    if file and name == _HEAD:
        return "would make its directory a git repository"
    return f"is {_OBEYED[name]} own" if name in _OBEYED else ""


class Globs:
    """Some globs, as one question. For the paths of one archive: what is known of a directory is
    kept."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._all = [_Glob(glob) for glob in globs]
        self._names = frozenset(name for glob in self._all for name in glob.names)
        self._top = _Directory(tuple((glob, glob.first) for glob in self._all), top=True)
        self._spent = 0.0

    def match(self, path: str, *, directory: bool) -> bool:
        """True if a glob matches this path, or a directory that it lies below. `directory` says
        that the path is one itself, or a link that may lead to one. Raises ConfigError once all
        paths together took too long."""
        began = time.thread_time()
        found = self._match(path.split("/"), directory=directory)
        self._spent += time.thread_time() - began
        if self._spent > MATCH_SECONDS:
            raise ConfigError(
                f"artifacts: the globs take longer than {MATCH_SECONDS:g} s for what is there",
                hint="fewer wildcards, or fewer files: pack them in the build",
            )
        return found

    def _match(self, parts: list[str], *, directory: bool) -> bool:
        *above, last = parts
        here = self._top
        for component in above:
            here = here.below(component)
            if here.whole:
                return True
        if directory:
            return here.below(last).whole
        return any(glob.ends(at, last) for glob, at in here.pairs)

    def risk(self, path: str, *, file: bool = False) -> str:
        """Return the part of this path that is left out unless it is named letter by letter, and
        why; mostly an empty text. `file`: it is an entry's own path, of a file or a link."""
        parts = path.split("/")
        for number, part in enumerate(parts, start=1):
            why = _risk(part, file=file and number == len(parts))
            if why and part not in self._names:
                return f"{'/'.join(parts[:number])!r} {why}"
        return ""


_Places = frozenset[int]


class _Directory:
    """A directory of an archive: where in each glob one may be there. `whole`: a glob names it, and
    so all below it."""

    __slots__ = ("_below", "pairs", "whole")

    def __init__(self, pairs: tuple[tuple[_Glob, _Places], ...], *, top: bool = False) -> None:
        self.whole = not top and any(glob.end in at for glob, at in pairs)
        self.pairs = () if self.whole else pairs
        self._below: dict[str, _Directory] = {}

    def below(self, component: str) -> _Directory:
        directory = self._below.get(component)
        if directory is None:
            with turns.costly():
                at = ((glob, glob.step(at, component)) for glob, at in self.pairs)
                directory = _Directory(tuple(pair for pair in at if pair[1]))
            self._below[component] = directory
        return directory


class _Glob:
    """One glob. Its places: before its first part is 0; `end` is behind the last one."""

    def __init__(self, glob: str) -> None:
        parts = _parts(glob)
        self.names = frozenset(parts)
        self._directories = glob.endswith("/")  # alone are meant
        none = glob.startswith("/") or ".." in parts or not parts
        self._parts = ["/"] if none else parts  # no name is that
        self.end = len(self._parts)
        self._tests = [_test(part) for part in self._parts]
        self.first = self._skipping([0])

    def step(self, at: _Places, component: str) -> _Places:
        """Positions at which one may be in a directory of this name below."""
        return self._skipping(
            place if self._parts[place] == "**" else place + 1
            for place in at
            if place < self.end and self._tests[place](component)
        )

    def ends(self, at: _Places, name: str) -> bool:
        """True if a file of this name is what the glob ends with: without what a `**` at the end
        that stands for nothing leads to, which a directory was before."""
        last = self.end - 1
        return not self._directories and last in at and bool(self._tests[last](name))

    def _skipping(self, at: Iterable[int]) -> _Places:
        """Add the place behind each `**` there, which may stand for nothing."""
        return frozenset(self._reached(at))

    def _reached(self, at: Iterable[int]) -> Iterator[int]:
        for place in at:
            yield place
            if place < self.end and self._parts[place] == "**":
                yield place + 1


def _test(part: str) -> Callable[[str], object]:
    if part == "**":
        return lambda _: True
    return re.compile(translate(part)).match if _wild(part) else part.__eq__
