"""Directories reached by descriptors: below one that is open, no link is followed.

A directory of another user may hold a link. A path walks through it; these do not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Where names stand for what a process has open.
_OPEN_FILES: Final = (Path("/dev"), Path("/dev/fd"))


class UnsafePath(OSError):
    """Something on the way is a link, or no directory at all. `path` is where it stands."""

    def __init__(self, path: str, *, link: bool) -> None:
        what = "is a link, and none is followed" if link else "is no directory"
        super().__init__(errno.ENOTDIR, f"{path!r} {what}")
        self.path = path


def descend(
    root: int,
    parts: Sequence[bytes],
    *,
    make: bool = True,
    made: Callable[[], object] = lambda: None,
) -> int:
    """An open directory below an open one; with `make` each is made where it was missing, and
    `made` is called for those. Raises Blocked."""
    here = os.dup(root)
    for number, part in enumerate(parts, start=1):
        try:
            if make and _make(here, part):
                made()
            below = _enter(here, part, b"/".join(parts[:number]))
        finally:
            os.close(here)
        here = below
    return here


def _make(parent: int, name: bytes) -> bool:
    """Make a directory there; whether it was missing."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _enter(parent: int, name: bytes, path: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        link = False
        with suppress(OSError):
            link = bool(os.readlink(name, dir_fd=parent))
        raise UnsafePath(os.fsdecode(path), link=link) from None


@contextmanager
def opened(place: Path, *, make: bool) -> Iterator[int]:
    """A directory; with `make` it is made where it was missing. Who names it from the root means
    what is there; one that is named from here may lie in a checkout, and is reached without links.
    """
    if place.is_absolute():
        if make:
            place.mkdir(parents=True, exist_ok=True)
        fd = os.open(place, _DIRECTORY)
    else:
        here = os.open(".", _DIRECTORY)
        try:
            fd = descend(here, [os.fsencode(part) for part in place.parts], make=make)
        finally:
            os.close(here)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def replacing(parent: int, name: bytes, mode: int) -> Iterator[BinaryIO]:
    """A file that is written beside `name` and takes its place when it is whole. Until then, and
    when it fails, what was there stays."""
    beside = _beside()
    fd = os.open(beside, _NEW, mode, dir_fd=parent)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(beside, dir_fd=parent)
        raise


def is_replaceable(file: Path) -> bool:
    """Return False for what a rename would take the place of, and not write to: a directory, a
    device, a FIFO, a name of what a process has open."""
    named = file.absolute().parent in _OPEN_FILES
    return not named and (not file.exists() or file.is_file())


def probe(parent: int, name: bytes) -> None:
    """Raises OSError when a file of such a name could not be written there."""
    beside = _beside()
    os.close(os.open(beside, _NEW, 0o600, dir_fd=parent))
    os.unlink(beside, dir_fd=parent)
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=parent, follow_symlinks=False)


def link(parent: int, name: bytes, target: bytes) -> None:
    """Put a symbolic link in the place of `name`."""
    beside = _beside()
    os.symlink(target, beside, dir_fd=parent)
    try:
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(beside, dir_fd=parent)
        raise


def _beside() -> bytes:
    return b".vmrunner-" + os.urandom(8).hex().encode()
