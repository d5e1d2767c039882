"""The contents of a source directory: in a git work tree what git tracks or does not ignore,
elsewhere all; never `.git`, which holds the past, and often a token in its configuration."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import work_tree

GIT_TIMEOUT: Final = 600.0  # seconds for git to list the files of one work tree


def contents(
    directory: Path, *, timeout: float = GIT_TIMEOUT
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative paths of files, links and directories, parents first, by name. No link is
    followed; what is not there is left out. Raises ConfigError."""
    names = work_tree.files(directory, timeout=timeout)
    if names is None:
        return _everything(directory)
    if not names and _any_file(directory):
        raise ConfigError(
            f"source: git ignores all that is in {str(directory)!r}",
            hint="copy it out of the work tree: there all of it goes; or `git add -f` it",
        )
    return _tracked(directory, names, timeout)


def _everything(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    todo = [""]
    while todo:
        here = todo.pop()
        below = []
        for relative, info in _stats(directory, here, _names(directory, here)):
            yield relative, info
            if stat.S_ISDIR(info.st_mode):
                below.append(f"{relative}/")
        todo += reversed(below)


def _tracked(
    directory: Path, names: list[str], timeout: float
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what `names` say, and what git says of the repositories among them."""
    tree: dict[str, set[str]] = {}
    _grow(tree, "", names)
    todo = [""]
    while todo:
        here = todo.pop()
        below = []
        for relative, info in _stats(directory, here, tree.pop(here, ())):
            yield relative, info
            if not stat.S_ISDIR(info.st_mode):
                continue
            inner = f"{relative}/"
            if inner not in tree:  # a submodule, or another repository
                found = work_tree.files(directory / relative, timeout=timeout, top=True)
                _grow(tree, inner, found or ())
            below.append(inner)
        todo += reversed(below)


def _grow(tree: dict[str, set[str]], root: str, names: Iterable[str]) -> None:
    """Add paths below `root` to a tree of names, by the directory that they are in."""
    for name in names:
        path = f"{root}{name}"
        while True:
            parent, slash, last = path.rpartition("/")
            siblings = tree.setdefault(f"{parent}{slash}", set())
            if last in siblings:
                break
            siblings.add(last)
            if f"{parent}{slash}" == root:
                break
            path = parent


def _stats(
    directory: Path, here: str, names: Iterable[str]
) -> Iterator[tuple[str, os.stat_result]]:
    for name in sorted(names):
        relative = f"{here}{name}"
        try:
            yield relative, (directory / relative).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable(directory, relative, error) from error


def _names(directory: Path, here: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory / here) if name != ".git"]  # noqa: PTH208
    except OSError as error:
        raise _unreadable(directory, here, error) from error


def _unreadable(directory: Path, relative: str, error: OSError) -> ConfigError:
    return ConfigError(f"source: {relative or str(directory)!r} cannot be read: {error.strerror}")


def _any_file(directory: Path) -> bool:
    for here, directories, names in os.walk(directory):
        del here
        directories[:] = [name for name in directories if name != ".git"]
        if any(name != ".git" for name in names):
            return True
    return False
