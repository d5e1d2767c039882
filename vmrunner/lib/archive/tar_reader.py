"""A reader of tar streams that an attacker wrote.

The standard library's reader keeps a header's extensions in memory whatever their size says, and
makes devices, links and sparse files on request. This one knows files, directories and symbolic
links, in ustar with pax or GNU names; names FIFOs and devices; and refuses everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from vmrunner.errors import VmrunnerError

BLOCK: Final = 512
EXTENSION: Final = 64 * 1024  # bytes of one entry's long name or pax header
EXTENSIONS: Final = 64 << 20  # of all in an archive: they may come without end, before no entry
PIECE: Final = 256 * 1024

_REFUSED: Final = {
    b"1": "a hard link",
    b"S": "a sparse file",
    b"M": "a part of a file",
    b"D": "a directory with a list",
}
_SPECIAL: Final = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
_USED: Final = frozenset({b"path", b"linkpath", b"size", b"mtime"})


class BadArchive(VmrunnerError):
    """An archive that is not taken. The message names the entry."""


class EntryKind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "symbolic link"
    SPECIAL = "FIFO or device"


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One header. `path` is as it was written: nothing about it is safe yet."""

    kind: EntryKind
    path: bytes
    size: int
    mode: int  # permission bits alone
    mtime: float
    target: bytes = b""
    what: str = ""  # a SPECIAL is


_KINDS: Final = {
    **dict.fromkeys((b"0", b"\0", b"7"), EntryKind.FILE),
    **dict.fromkeys(_SPECIAL, EntryKind.SPECIAL),
    b"2": EntryKind.LINK,
    b"5": EntryKind.DIRECTORY,
}


class ByteSource(Protocol):
    """Bytes to read; an empty answer is the end."""

    def read(self, size: int, /) -> bytes: ...


class TarReader:
    """Entries in order. The content of each must be taken before the next."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._remaining = 0  # bytes of the current entry's content
        self._padding = 0
        self._extensions = 0  # bytes, heads included

    def entries(self) -> Iterator[TarEntry]:
        """Raises BadArchive on anything that is not plain."""
        names: dict[str, bytes] = {}
        while True:
            self._skip()
            header = self._exactly(BLOCK, "a header", may_end=not names)
            if not header.strip(b"\0"):
                return
            kind, size = header[156:157], _number(header[124:136])
            _check_sum(header)
            if kind in (b"x", b"L", b"K"):
                names.update(self._extension(kind, size))
            elif kind == b"g":
                self._extension(kind, size)  # comments, such as git archive's commit id
            else:
                entry = _entry(header, kind, size, names)
                names = {}
                self._remaining = entry.size
                self._padding = -entry.size % BLOCK
                yield entry

    def copy(self, write: Callable[[bytes], object]) -> None:
        """The content of the current entry."""
        while self._remaining:
            data = self._exactly(min(PIECE, self._remaining), "content")
            self._remaining -= len(data)
            write(data)

    def _skip(self) -> None:
        self.copy(len)
        self._exactly(self._padding, "padding")
        self._padding = 0

    def _extension(self, kind: bytes, size: int) -> dict[str, bytes]:
        if size > EXTENSION:
            raise BadArchive(f"archive: a header of {size} bytes")
        self._extensions += BLOCK + size
        if self._extensions > EXTENSIONS:
            raise BadArchive(f"archive: more than {EXTENSIONS} bytes of headers")
        data = self._exactly(size, "a header")
        self._exactly(-size % BLOCK, "padding")
        if kind == b"L":
            return {"path": data.rstrip(b"\0")}
        if kind == b"K":
            return {"linkpath": data.rstrip(b"\0")}
        return _pax(data)

    def _exactly(self, size: int, what: str, *, may_end: bool = False) -> bytes:
        data = b""
        while len(data) < size:
            part = self._source.read(size - len(data))
            if not part:
                if may_end and not data:
                    return bytes(size)
                raise BadArchive(f"archive: it ends in the middle of {what}")
            data += part
        return data


def _entry(header: bytes, kind: bytes, size: int, names: dict[str, bytes]) -> TarEntry:
    path = names.get("path")
    if path is None:
        path = _text(header[0:100])
        if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
            path = prefix + b"/" + path
    shown = path[:200].decode("utf-8", "backslashreplace")
    if "sparse" in names:
        raise BadArchive(f"archive: {shown!r} is a sparse file")
    real = _KINDS.get(kind)
    if real is None:
        raise BadArchive(f"archive: {shown!r} is {_REFUSED.get(kind, 'of an unknown kind')}")
    if "size" in names:
        size = _decimal(names["size"])
    if real is EntryKind.FILE and path.endswith(b"/"):
        if size:
            raise BadArchive(f"archive: {shown!r} is a file with a directory's name")
        real = EntryKind.DIRECTORY
    return TarEntry(
        real,
        path,
        size if real is EntryKind.FILE else 0,
        _number(header[100:108]) & 0o777,
        _mtime(names["mtime"]) if "mtime" in names else _seconds(header[136:148]),
        names.get("linkpath", _text(header[157:257])) if real is EntryKind.LINK else b"",
        _SPECIAL.get(kind, ""),
    )


def _pax(data: bytes) -> dict[str, bytes]:
    """Parse the records of a pax header (length, key, value) and keep the keys that are of use."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        end = at + _decimal(data[at : max(space, at)])
        key, equals, value = data[space + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(data):
            raise BadArchive("archive: a broken pax header")
        at = end
        if key.startswith(b"GNU.sparse"):
            found["sparse"] = b""
        elif key in _USED:
            found[key.decode()] = value[:-1]
    return found


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise BadArchive("archive: a broken number in a pax header")
    return int(text)


def _mtime(text: bytes) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1 << 40:
        raise BadArchive("archive: a broken time in a pax header")
    return seconds


def _seconds(field: bytes) -> float:
    """A time; what was before 1970 is as old as can be told."""
    return 0.0 if field[0] == 0xFF else float(_number(field))


def _number(field: bytes) -> int:
    """Octal text, or GNU's big-endian binary."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if not set(digits) <= set(b"01234567"):
            raise BadArchive("archive: a broken number in a header")
        value = int(digits or b"0", 8)
    if value >= 1 << 60:
        raise BadArchive("archive: a number in a header is too large")
    return value


def _check_sum(header: bytes) -> None:
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156]) != sum(blank):
        raise BadArchive("archive: a header's checksum is wrong")
