"""Directories as tar streams, both ways, in bounded memory.

`pack` reads a directory of the user's; `extract` writes what a virtual machine sent, which is
attacker input: nothing is written outside the target, through a link, or beyond the caps.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import dirfd
from vmrunner.lib.archive.tar_reader import BadArchive, ByteSource, EntryKind, TarEntry, TarReader
from vmrunner.lib.globs import Globs

if TYPE_CHECKING:
    import pathspec

    _Ignore = tuple[str, pathspec.GitIgnoreSpec]  # the directory of a .gitignore, its patterns

DEPTH: Final = 64  # directories below one another
IGNORE_BYTES: Final = 1 << 20  # of one .gitignore
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
    """Totals of what was packed or extracted: files and links, and bytes of files."""

    entries: int = 0
    size: int = 0
    omitted: tuple[str, ...] = ()  # what was left out of it, and why


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
    """Write a tar of what git would not ignore. `.git` is left out: it holds the past, and often
    a token in its config. Raises ConfigError on what a build could not have anyway: sockets,
    devices, links that lead outside."""
    entries = size = 0
    tar = tarfile.TarFile(
        fileobj=sink,  # type: ignore[arg-type]  # it only writes
        mode="w",
        format=tarfile.GNU_FORMAT,
        errors="surrogateescape",
    )
    with closing(tar):
        for relative, info in _walk(directory):
            member = _member(directory, relative, info)
            entries += 1
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
            if not member.isreg():
                tar.addfile(member)
                continue
            try:
                with (directory / relative).open("rb") as file:
                    tar.addfile(member, file)
            except OSError as error:
                why = error.strerror or "it changed while it was read"
                raise ConfigError(f"source: {relative!r} cannot be packed: {why}") from error
            size += member.size
    return ArchiveTotal(entries=entries, size=size)


def _walk(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what belongs to the source, parents first, in the order of names."""
    todo: list[tuple[str, list[_Ignore]]] = [("", [])]
    while todo:
        here, ignores = todo.pop()
        try:
            found = sorted(os.scandir(directory / here), key=lambda entry: entry.name)
        except OSError as error:
            raise ConfigError(
                f"source: {here or str(directory)!r} cannot be read: {error.strerror}"
            ) from error
        ignores = [*ignores, *_ignores(directory, here)]
        below = []
        for entry in found:
            relative = f"{here}{entry.name}"
            is_directory = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git" or _ignored(relative, is_directory, ignores):
                continue
            yield relative, entry.stat(follow_symlinks=False)
            if is_directory:
                below.append((f"{relative}/", ignores))
        todo += reversed(below)


def _ignores(directory: Path, here: str) -> list[_Ignore]:
    file = directory / here / ".gitignore"
    try:  # no link: git follows none here either, and it could lead to a device without end
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(descriptor, errors="surrogateescape") as text:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return []
        if info.st_size > IGNORE_BYTES:
            raise ConfigError(f"source: {here}.gitignore is larger than {IGNORE_BYTES} bytes")
        lines = text.read(IGNORE_BYTES).splitlines()
    import pathspec  # late: most builds have no .gitignore to read

    return [(here, pathspec.GitIgnoreSpec.from_lines(lines))]


def _ignored(relative: str, is_directory: bool, ignores: list[_Ignore]) -> bool:
    """The nearest .gitignore that has an opinion decides."""
    for base, spec in reversed(ignores):
        path = relative.removeprefix(base) + ("/" if is_directory else "")
        verdict = spec.check_file(path).include
        if verdict is not None:
            return verdict
    return False


def _member(directory: Path, relative: str, info: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(relative)
    member.mode = info.st_mode & 0o777
    member.mtime = int(info.st_mtime)
    if stat.S_ISREG(info.st_mode):
        member.size = info.st_size
    elif stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(directory / relative)  # noqa: PTH115  keeps it as written
        if not stays_inside(relative, member.linkname):
            raise ConfigError(
                f"source: the link {relative!r} leads outside, to {member.linkname!r}",
                hint="name it in .gitignore, or make it relative to a file in the source",
            )
    else:
        kind = stat.filemode(info.st_mode)[0]
        name = {"s": "a socket", "p": "a FIFO"}.get(kind, "a device")
        raise ConfigError(f"source: {relative!r} is {name}", hint="name it in .gitignore")
    return member


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
    before it stays. What a build may have and nobody can take is left out: FIFOs, devices, links
    that lead outside, git's own files and names with control characters that no glob names. Bits
    beyond rwx are dropped."""
    target.mkdir(parents=True, exist_ok=True)
    stream: ByteSource = _Counted(source, caps.packed)
    if gzip:
        stream = _Gunzip(stream)
    tally = _Tally(caps)
    reader = TarReader(stream)
    asked = Globs(globs)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in reader.entries():
            tally.entry(entry)
            _extract(reader, entry, root, tally, asked)
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


def _extract(reader: TarReader, entry: TarEntry, root: int, tally: _Tally, asked: Globs) -> None:
    parts = _parts(entry)
    if not parts:  # the root itself
        return
    path = os.fsdecode(b"/".join(parts))
    if not asked.match(path, directory=entry.kind in (EntryKind.DIRECTORY, EntryKind.LINK)):
        raise BadArchive(f"archive: {_shown(entry)} is nothing that was asked for")
    if why := _unwanted(entry, path, asked):
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


def _unwanted(entry: TarEntry, path: str, asked: Globs) -> str:
    """Return why an entry is left out although a build may have it; mostly an empty text."""
    if entry.kind is EntryKind.SPECIAL:
        return f"{_shown(entry)} is {entry.what}"
    to = os.fsdecode(entry.target)
    if entry.kind is EntryKind.LINK and (not to or "\0" in to or not stays_inside(path, to)):
        return f"the link {_shown(entry)} leads outside"
    own = entry.kind is not EntryKind.DIRECTORY
    return asked.risk(path, file=own) or asked.risk(to)


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
        self._left = most

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
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
