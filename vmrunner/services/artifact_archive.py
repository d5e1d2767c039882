"""Artifacts of a build as one tar stream."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from vmrunner.services.artifacts import Artifacts

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 18


def archive(artifacts: Artifacts) -> Iterator[bytes]:
    """Yield a tar of them all: files and links, with modes and times."""
    for artifact in artifacts.ls():
        place = artifacts.directory / artifact.path
        info = tarfile.TarInfo(artifact.path)
        seen = place.lstat()
        info.mode, info.mtime = stat.S_IMODE(seen.st_mode), int(seen.st_mtime)
        if stat.S_ISLNK(seen.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(place)  # noqa: PTH115
            yield _header(info)
        elif stat.S_ISREG(seen.st_mode):
            info.size = seen.st_size
            yield _header(info)
            with os.fdopen(os.open(place, _READ), "rb") as file:
                yield from _exactly(file, info.size)
    yield b"\0" * 2 * tarfile.BLOCKSIZE


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _exactly(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield so many bytes of a file, and zeros to the end of the block."""
    left = size
    while left > 0 and (data := file.read(min(left, _PIECE))):
        left -= len(data)
        yield data
    yield b"\0" * (left + -size % tarfile.BLOCKSIZE)
