"""Files that the globs of `collect` name, by a walk of our own over the work directory.

Python's `glob` lets `**` go through links, and two links to `.` then keep it busy for ever. Here
`**` goes through none; a link that a pattern names, or that `*` meets, is followed as by a shell,
but none out of the work directory: what is there is not the build's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from fnmatch import translate

SECONDS = 120.0  # for all globs together
NAMES = 200_000  # matched at most; the other side takes fewer


class BadGlobs(Exception):
    """The globs find more than anybody waits for, or name a link that leads out of the work
    directory."""


def find(root: str, globs: Sequence[str]) -> tuple[list[int], list[str]]:
    """The number of names that each glob matches, and tar's arguments that bring each of them
    once. Raises BadGlobs."""
    until = time.monotonic() + SECONDS
    counts = []
    found: set[str] = set()
    for glob in globs:
        names = set()
        for name in _matches(root, glob, until):
            names.add(name)
            if len(found) + len(names) > NAMES:
                raise BadGlobs(f"over {NAMES} files match: narrow the globs, or bring a directory")
        counts.append(len(names))
        found |= names
    return counts, _fewest(root, found)


def _matches(root: str, glob: str, until: float) -> Iterator[str]:
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if glob.startswith("/") or ".." in parts or not parts:
        return
    directories = glob.endswith("/")  # alone are meant
    todo = [("", 0)]  # a directory, and the first part that is not matched yet
    seen = set(todo)
    while todo:
        here, number = todo.pop()
        for name, part in _step(root, here, parts, number, until):
            if part == len(parts):
                if name and not (directories and not os.path.isdir(f"{root}/{name}")):
                    yield name
            elif (name, part) not in seen and os.path.isdir(f"{root}/{name}"):
                seen.add((name, part))
                if _stays(root, name):
                    todo.append((name, part))
                elif not _is_pattern(parts[part - 1]):
                    raise BadGlobs(f"{name}: this link leads out of the work directory")


def _stays(root: str, name: str) -> bool:
    """True if what is at this name is inside; so are the directories above it."""
    path, real = f"{root}/{name}", os.path.realpath
    return not os.path.islink(path) or f"{real(path)}/".startswith(
        real(f"{root}/").rstrip("/") + "/"
    )


def _is_pattern(part: str) -> bool:
    return any(letter in part for letter in "*?[")


def _step(
    root: str, here: str, parts: Sequence[str], number: int, until: float
) -> Iterator[tuple[str, int]]:
    """Yield where one part of a glob leads to from a directory, and the part that comes next
    there."""
    if parts[number] != "**":
        for name in _named(root, here, parts[number], until):
            yield name, number + 1
        return
    yield here, number + 1
    for name, is_directory in _entries(root, here, until):
        if is_directory:
            yield name, number
        elif number + 1 == len(parts):
            yield name, number + 1


def _named(root: str, here: str, part: str, until: float) -> Iterator[str]:
    """Yield the names that one part of a glob means in a directory."""
    if not _is_pattern(part):
        name = f"{here}/{part}" if here else part
        if os.path.lexists(f"{root}/{name}"):
            yield name
        return
    match = re.compile(translate(part)).match
    for name, _ in _entries(root, here, until):
        if match(name.rpartition("/")[2]):
            yield name


def _entries(root: str, here: str, until: float) -> Iterator[tuple[str, bool]]:
    """Names in a directory, and whether each is a directory itself; none where it cannot be
    read."""
    try:
        with os.scandir(f"{root}/{here}") as entries:
            for entry in entries:
                if time.monotonic() > until:
                    raise BadGlobs(f"looking for them took over {SECONDS:.0f} s: narrow the globs")
                name = f"{here}/{entry.name}" if here else entry.name
                yield name, entry.is_dir(follow_symlinks=False)
    except OSError:
        return


def _fewest(root: str, names: set[str]) -> list[str]:
    """Return the names without those that a listed directory brings along, since tar would pack
    them twice, and without links below whose name something else is listed, which would be in its
    way."""
    repositories: dict[str, bool] = {}

    def brings(above: str) -> bool:
        if above not in repositories:
            path = f"{root}/{above}"
            repositories[above] = (
                above in names and os.path.isdir(path) and not os.path.islink(path)
            )
        return repositories[above]

    kept = [name for name in sorted(names) if not any(map(brings, _above(name)))]
    passed = {above for name in kept for above in _above(name)}
    return [name for name in kept if name not in passed]


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
