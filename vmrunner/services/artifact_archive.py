"""Artifacts of a build as one stream: a tar, or a zip."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from vmrunner.services.documents import shown
from vmrunner.store.build_artifacts import BLOCK, ArtifactEntry, ArtifactFiles, tar_header

_LEVEL: Final = 1  # of compression: while it is sent
_YEARS: Final = (1980, 2107)  # that a zip can tell


def archive(files: ArtifactFiles) -> Iterator[bytes]:
    """Yield a tar of them all: files and links, with modes and times."""
    for entry in files.ls():
        if stat.S_ISLNK(entry.mode):
            yield tar_header(entry)
        elif stat.S_ISREG(entry.mode):
            yield tar_header(entry)
            yield from _exactly(files, entry)
    yield bytes(2 * BLOCK)


def _exactly(files: ArtifactFiles, entry: ArtifactEntry) -> Iterator[bytes]:
    """Yield so many bytes of a file, and zeros to the end of the block."""
    remaining = entry.size
    for data in files.read(entry):
        yield data[:remaining]
        remaining -= min(remaining, len(data))
    yield bytes(remaining + -entry.size % BLOCK)


class _Sent(io.RawIOBase):
    """Bytes that the writer of a zip wrote since they were taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def zipped(files: ArtifactFiles) -> Iterator[bytes]:
    """Yield a zip of them all: files and links, with modes and times. A name that is no UTF-8 has
    U+FFFD for each such byte."""
    sent = _Sent()
    names: dict[str, int] = {}
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as target:
        for entry in files.ls():
            member = _member(entry, names)
            if stat.S_ISLNK(entry.mode):
                target.writestr(member, (entry.target or "").encode("utf-8", "surrogateescape"))
            elif stat.S_ISREG(entry.mode):
                with target.open(member, "w", force_zip64=True) as writer:
                    for data in files.read(entry):
                        writer.write(data)
                        yield sent.take()
            yield sent.take()
    yield sent.take()


def _member(entry: ArtifactEntry, names: dict[str, int]) -> zipfile.ZipInfo:
    """The member of an entry. `names`: those that are taken, with how many wanted each: no name is
    tried twice for another."""
    name = wanted = shown(entry.path)
    while name in names:
        names[wanted] += 1
        name = f"{wanted}_{names[wanted]}"
    names[name] = 0
    seconds = entry.mtime_ns // 1_000_000_000
    moment = datetime.fromtimestamp(max(0, min(seconds, 1 << 33)), UTC)
    year = max(_YEARS[0], min(moment.year, _YEARS[1]))
    date = (year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    member = zipfile.ZipInfo(name, date)
    member.external_attr = entry.mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member
