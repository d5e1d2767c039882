"""Make a tar readable for mke2fs, which knows names only in the C locale.

libarchive refuses to turn a UTF-8 name into that locale, and mke2fs calls no setlocale(). A record
`hdrcharset=BINARY` in the entry's extended header makes it take the bytes as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_BLOCK: Final = 512
_RECORD: Final = b"21 hdrcharset=BINARY\n"
_SMALL: Final = 1 << 20  # an extended header is never larger


def mark(tar: Path) -> None:
    """Rewrite `tar` with the record in every extended header that has a byte above ASCII."""
    with tar.open("rb") as source:
        found = list(_foreign(source))
        if not found:
            return
        new = tar.with_suffix(".marked")
        with new.open("wb") as target:
            at = 0
            for start, header, body in found:
                _copy(source, target, at, start)
                target.write(_extended(header, _RECORD + body))
                at = start + _BLOCK + _padded(len(body))
            _copy(source, target, at, tar.stat().st_size)
    new.replace(tar)


def _foreign(source: IO[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """(offset, header block, body) of extended headers that hold a byte above ASCII."""
    at = 0
    while len(header := os.pread(source.fileno(), _BLOCK, at)) == _BLOCK and any(header[:1]):
        size = _size(header[124:136])
        if header[156:157] == b"x" and size < _SMALL:
            body = os.pread(source.fileno(), size, at + _BLOCK)
            if not body.isascii():
                yield at, header, body
        at += _BLOCK + _padded(size)


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
    return bytes(block) + body + b"\0" * (_padded(len(body)) - len(body))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _copy(source: IO[bytes], target: IO[bytes], start: int, end: int) -> None:
    target.flush()
    while start < end:
        start += os.sendfile(target.fileno(), source.fileno(), start, end - start)
