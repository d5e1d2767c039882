"""The NoCloud seed: an ISO 9660 image with plain upper-case names, which Linux shows in lower
case. Forty lines instead of a tool that the host may not have. Pure."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Final

from vmrunner.guest import identity

SECTOR: Final = 2048
_ROOT: Final = 20  # 16 the descriptor, 17 its end, 18 and 19 the path tables
_YEAR: Final = bytes([126, 1, 1, 0, 0, 0, 0])  # a fixed date: the same seed is the same bytes


def shape(wanted: Mapping[str, str | int] | None) -> bytes:
    """The disk that tells a VM with a channel which container its build will want, and nothing of
    the build. Its size is always the same."""
    data = identity.SEED_HEAD + json.dumps(wanted, sort_keys=True).encode()
    if len(data) > identity.SEED_BYTES:
        raise ValueError(f"a shape of {len(data)} bytes")
    return data.ljust(identity.SEED_BYTES, b"\0")


def image(files: Mapping[str, bytes], label: str = "CIDATA") -> bytes:
    """An image whose root holds `files`. Names have no dot and at most 30 characters."""
    at = _ROOT + 1
    records = _record(b"\0", _ROOT, SECTOR, 2) + _record(b"\1", _ROOT, SECTOR, 2)
    content = b""
    for name, data in sorted(files.items()):
        records += _record(f"{name.upper()}.;1".encode(), at, len(data), 0)
        padded = data.ljust(max(SECTOR, -(-len(data) // SECTOR) * SECTOR), b"\0")
        content += padded
        at += len(padded) // SECTOR
    if len(records) > SECTOR:
        raise ValueError("too many files for one sector of directory")
    return b"".join(
        (
            bytes(16 * SECTOR),
            _descriptor(label, at),
            (b"\xffCD001\1").ljust(SECTOR, b"\0"),
            struct.pack("<BBIHBB", 1, 0, _ROOT, 1, 0, 0).ljust(SECTOR, b"\0"),
            struct.pack(">BBIHBB", 1, 0, _ROOT, 1, 0, 0).ljust(SECTOR, b"\0"),
            records.ljust(SECTOR, b"\0"),
            content,
        )
    )


def _both(number: int, size: int) -> bytes:
    """A number in both byte orders, as ISO 9660 likes it."""
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def _record(name: bytes, sector: int, size: int, flags: int) -> bytes:
    body = (
        b"\0"
        + _both(sector, 4)
        + _both(size, 4)
        + _YEAR
        + bytes([flags, 0, 0])
        + _both(1, 2)
        + bytes([len(name)])
        + name
    )
    body += b"\0" * ((len(body) + 1) % 2)
    return bytes([len(body) + 1]) + body


def _descriptor(label: str, sectors: int) -> bytes:
    date = b"2026010100000000\0"
    return b"".join(
        (
            b"\1CD001\1\0",
            b" " * 32,
            label.encode().ljust(32),
            bytes(8),
            _both(sectors, 4),
            bytes(32),
            _both(1, 2) + _both(1, 2) + _both(SECTOR, 2),
            _both(10, 4),  # bytes of path table
            struct.pack("<II", 18, 0) + struct.pack(">II", 19, 0),
            _record(b"\0", _ROOT, SECTOR, 2),
            b" " * (128 * 4 + 37 * 3),
            date + date + b"0" * 16 + b"\0" + date,
            b"\1\0",
        )
    ).ljust(SECTOR, b"\0")
