"""Copy a tar for mke2fs, which knows names only in the C locale.

libarchive refuses to turn a UTF-8 name into that locale, and mke2fs calls no setlocale(). A record
`hdrcharset=BINARY` in the entry's extended header makes it take the bytes as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

BLOCK: Final = 512
RECORD: Final = b"21 hdrcharset=BINARY\n"
_SMALL: Final = 1 << 20  # an extended header is never larger


def copy(tar: Path, to: IO[bytes]) -> None:
    """Copy all members, with the record in every extended header that has a byte above ASCII. The
    zeros at the end stay behind: others may follow."""
    with tar.open("rb") as source:
        at = 0
        for start, stop, header, body in _changed(source):
            send(source, to, at, start)
            to.write(_extended(header, RECORD + body) if body else b"")
            at = stop


def _changed(source: IO[bytes]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(start, stop, header block, body) of extended headers that hold a byte above ASCII; then the
    end of the last member, without a body."""
    at = 0
    while len(header := os.pread(source.fileno(), BLOCK, at)) == BLOCK and any(header[:1]):
        size = _size(header[124:136])
        after = at + BLOCK + padded(size)
        if header[156:157] == b"x" and size < _SMALL:
            body = os.pread(source.fileno(), size, at + BLOCK)
            if not body.isascii():
                yield at, after, header, body
        at = after
    yield at, at, b"", b""


def _size(field: bytes) -> int:
    """Octal digits, or GNU's binary form for 8 GiB and more."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _extended(header: bytes, body: bytes) -> bytes:
    """The header block with the new body's size and checksum, and the body, padded."""
    block = bytearray(header)
    block[124:136] = f"{len(body):011o}".encode() + b"\0"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}".encode() + b"\0 "
    return bytes(block) + body + b"\0" * (padded(len(body)) - len(body))


def padded(size: int) -> int:
    """Bytes of as many whole blocks as `size` bytes take."""
    return -(-size // BLOCK) * BLOCK


def send(source: IO[bytes], target: IO[bytes], start: int, end: int) -> None:
    """Copy the bytes from `start` to `end` of a file. Raises OSError where it has fewer."""
    target.flush()
    while start < end:
        sent = os.sendfile(target.fileno(), source.fileno(), start, end - start)
        if not sent:
            raise OSError(f"{source.name} is cut")
        start += sent
