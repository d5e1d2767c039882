"""Directories as tar streams, both ways, in bounded memory.

`pack` reads a directory of the user's; `extract` writes what a virtual machine sent, which is
attacker input: nothing is written outside the target, through a link, or beyond the caps.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import dirfd, units
from vmrunner.lib.archive.contents import contents
from vmrunner.lib.archive.tar_reader import BadArchive, ByteSource, EntryKind, TarEntry, TarReader
from vmrunner.lib.globs import Globs

DEPTH: Final = 64  # directories below one another
OMISSIONS: Final = 1000  # that are told


class ByteSink(Protocol):
    """Destination of a stream of bytes."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveCaps:
    """Limits on the size and number of an archive's entries."""

    packed: int = 1 << 40  # bytes as they arrive, compressed or not
    unpacked: int = 2 << 30  # bytes of all files together
    entries: int = 150_000  # files, links and directories, also those that paths only imply


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveTotal:
    """Totals of what was packed or extracted."""

    entries: int = 0  # files, links and directories
    files: int = 0  # of a source: files and links
    size: int = 0  # bytes of files
    omitted: tuple[str, ...] = ()  # what was left out of it, and why

    def __str__(self) -> str:
        return f"{self.files:,} {'file' if self.files == 1 else 'files'}, {units.amount(self.size)}"


def stays_inside(path: str, target: str) -> bool:
    """True if a link at `path` leads to a place under the same root, whatever other links that also
    do lie on the way: it climbs only at its beginning, and no higher than the root."""
    if target.startswith("/"):
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    depth = len([part for part in path.split("/") if part not in ("", ".")]) - 1
    return climbs <= depth and ".." not in parts[climbs:]


# --- packing ------------------------------------------------------------------------------------


def pack(directory: Path, sink: ByteSink) -> ArchiveTotal:
    """Write a tar of a source's contents. Raises ConfigError on what a build could not have anyway:
    sockets, devices, links that lead outside."""
    entries = files = size = 0
    tar = tarfile.TarFile(
        fileobj=sink,  # type: ignore[arg-type]  # it only writes
        mode="w",
        format=tarfile.GNU_FORMAT,
        errors="surrogateescape",
    )
    with closing(tar):
        for relative, info in contents(directory):
            entry = member(directory, relative, info)
            entries += 1
            files += not entry.isdir()
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
            if not entry.isreg():
                tar.addfile(entry)
                continue
            try:
                with (directory / relative).open("rb") as file:
                    tar.addfile(entry, file)
            except OSError as error:
                why = error.strerror or "it changed while it was read"
                raise ConfigError(f"source: {relative!r} cannot be packed: {why}") from error
            size += entry.size
    return ArchiveTotal(entries=entries, files=files, size=size)


def member(directory: Path, relative: str, info: os.stat_result) -> tarfile.TarInfo:
    """Return the tar's entry of one path. Raises ConfigError on what no build could have."""
    entry = tarfile.TarInfo(relative)
    entry.mode = info.st_mode & 0o777
    entry.mtime = int(info.st_mtime)
    if stat.S_ISREG(info.st_mode):
        entry.size = info.st_size
    elif stat.S_ISDIR(info.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(directory / relative)  # noqa: PTH115  keeps it as written
        if not stays_inside(relative, entry.linkname):
            raise ConfigError(
                f"source: the link {relative!r} leads outside, to {entry.linkname!r}",
                hint="let it lead to a file in the source, relative to where it is, or remove it",
            )
    else:
        kind = stat.filemode(info.st_mode)[0]
        name = {"s": "a socket", "p": "a FIFO"}.get(kind, "a device")
        raise ConfigError(f"source: {relative!r} is {name}", hint="put it elsewhere")
    return entry


# --- extracting ---------------------------------------------------------------------------------


def extract(
    source: ByteSource,
    target: Path,
    caps: ArchiveCaps,
    *,
    globs: Sequence[str] = ("**",),
    gzip: bool = False,
) -> ArchiveTotal:
    """Write an archive's files below `target`, which is made if it is missing. Raises BadArchive
    at the first entry that no honest archive of what `globs` name could have; what was written
    before it stays. What a build may have and cannot be taken is left out: FIFOs, devices, links
    that lead outside, git's own files and names with control characters that no glob names. Bits
    beyond rwx are dropped."""
    target.mkdir(parents=True, exist_ok=True)
    stream: ByteSource = _Counted(source, caps.packed)
    if gzip:
        stream = _Gunzip(stream)
    tally = _Tally(caps)
    reader = TarReader(stream)
    requested = Globs(globs)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in reader.entries():
            tally.entry(entry)
            _extract(reader, entry, root, tally, requested)
    except OSError as error:
        raise VmrunnerError(f"artifacts: {target} cannot be written: {error.strerror}") from error
    finally:
        os.close(root)
    return ArchiveTotal(entries=tally.entries, size=tally.size, omitted=tuple(tally.omitted))


class _Tally:
    """A running total, held against the caps."""

    def __init__(self, caps: ArchiveCaps) -> None:
        self.entries = 0
        self.size = 0
        self.omitted: dict[str, None] = {}
        self._caps = caps
        self._made = 0

    def entry(self, entry: TarEntry) -> None:
        self.entries += 1
        self.size += entry.size
        self.made()
        if self.size > self._caps.unpacked:
            raise BadArchive(
                f"archive: {_shown(entry)} brings it to {self.size} bytes,"
                f" and {self._caps.unpacked} are allowed"
            )

    def omit(self, why: str) -> None:
        self.entries -= 1
        if len(self.omitted) < OMISSIONS:
            self.omitted[why] = None

    def made(self) -> None:
        """Count one more on the disk: an entry, or a directory that an entry only names."""
        self._made += 1
        if self._made > self._caps.entries:
            most = self._caps.entries
            raise BadArchive(f"archive: more than {most} entries: pack them in the build")


def _extract(
    reader: TarReader, entry: TarEntry, root: int, tally: _Tally, requested: Globs
) -> None:
    parts = _parts(entry)
    if not parts:  # the root itself
        return
    path = os.fsdecode(b"/".join(parts))
    if not requested.match(path, directory=entry.kind in (EntryKind.DIRECTORY, EntryKind.LINK)):
        raise BadArchive(f"archive: {_shown(entry)} is nothing that was asked for")
    if why := _unwanted(entry, path, requested):
        tally.omit(why)
        return
    try:
        parent = dirfd.descend(root, parts[:-1], made=tally.made)
        try:
            _write(reader, entry, parent, parts[-1])
        finally:
            os.close(parent)
    except dirfd.UnsafePath:
        raise BadArchive(
            f"archive: {_shown(entry)} goes through something that is no directory"
        ) from None


def _unwanted(entry: TarEntry, path: str, requested: Globs) -> str:
    """The reason why an entry is left out although a build may have it; mostly ""."""
    if entry.kind is EntryKind.SPECIAL:
        return f"{_shown(entry)} is {entry.what}"
    to = os.fsdecode(entry.target)
    if entry.kind is EntryKind.LINK and (not to or "\0" in to or not stays_inside(path, to)):
        return f"the link {_shown(entry)} leads outside"
    own = entry.kind is not EntryKind.DIRECTORY
    return requested.risk(path, file=own) or requested.risk(to)


def _write(reader: TarReader, entry: TarEntry, parent: int, name: bytes) -> None:
    try:
        if entry.kind is EntryKind.DIRECTORY:
            os.close(dirfd.descend(parent, [name]))
            return
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        if entry.kind is EntryKind.LINK:
            os.symlink(entry.target, name, dir_fd=parent)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, entry.mode | 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as file:
            reader.copy(file.write)
            file.flush()
            os.utime(file.fileno(), (entry.mtime, entry.mtime))
    except IsADirectoryError:
        raise BadArchive(f"archive: {_shown(entry)} is a directory already") from None


def _parts(entry: TarEntry) -> list[bytes]:
    parts = [part for part in entry.path.split(b"/") if part not in (b"", b".")]
    if entry.path.startswith(b"/"):
        raise BadArchive(f"archive: {_shown(entry)} is an absolute path")
    if b".." in parts:
        raise BadArchive(f"archive: {_shown(entry)} contains '..'")
    if len(parts) > DEPTH or any(len(part) > 255 or b"\0" in part for part in parts):
        raise BadArchive(f"archive: {_shown(entry)} is too long a path")
    return parts


def _shown(entry: TarEntry) -> str:
    return repr(entry.path[:200].decode("utf-8", "backslashreplace").removeprefix("./"))


class _Counted:
    """A source that may not give more than so many bytes."""

    def __init__(self, source: ByteSource, most: int) -> None:
        self._source = source
        self._remaining = most

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._remaining -= len(data)
        if self._remaining < 0:
            raise BadArchive("archive: more bytes than are allowed")
        return data


class _Gunzip:
    """A gzip stream unpacked, never more of it in memory than is asked for."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._unpack = zlib.decompressobj(wbits=31)

    def read(self, size: int) -> bytes:
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._source.read(65536)
            if not packed:
                return b""
            try:
                data = self._unpack.decompress(packed, size)
            except zlib.error as error:
                raise BadArchive(f"archive: {error}") from None
            if data:
                return data
        return b""
