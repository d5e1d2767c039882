"""The name that a TLS client asks for, read from its first bytes as RFC 8446 has them. Pure.

The bytes are an attacker's. What has two readings is refused, since the server might choose the
other one: a name that comes twice, bytes too many, an inner hello that is encrypted (ECH).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: Bytes that a ClientHello may take; those of browsers take 2 KiB.
LONGEST_HELLO: Final = 16384
#: Records that it may come in: TLS lets a client split it anywhere.
RECORDS: Final = 8

_HEAD: Final = 5  # bytes of a record's head
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
#: Of the standard, and of the drafts before it.
_ENCRYPTED: Final = frozenset({*range(0xFE08, 0xFE0E), 0xFF02, 0xFFCE})
_NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{1,63}", re.ASCII)


class HelloRefused(Exception):
    """These bytes begin nothing that may pass; the text says why."""


class _Bytes:
    """A reader that never reads past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise HelloRefused("a length that is too long")
        self._at += size
        return self._data[self._at - size : self._at]

    def vector(self, size: int) -> bytes:
        """Bytes after their own length, a number of `size` bytes."""
        return self.take(self.number(size))


def host_name(text: str) -> str:
    """Return a host's name in lower case. Raises HelloRefused for what is none."""
    name = text.lower()
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise HelloRefused("no name of a host")
    return name


def server_name(data: bytes) -> str | None:
    """Return the name that a connection that begins with `data` asks for; None while it is not
    there whole. Raises HelloRefused."""
    hello = _handshake(data)
    return None if hello is None else host_name(_name(hello))


def _handshake(data: bytes) -> bytes | None:
    """Return the body of the ClientHello, put together from its records; None while some of it is
    missing."""
    whole, at = b"", 0
    for _ in range(RECORDS):
        head = data[at : at + _HEAD]
        if not bytes([_HANDSHAKE, 3]).startswith(head[:2]):
            raise HelloRefused("not TLS")
        if len(head) < _HEAD:
            return None
        size = int.from_bytes(head[3:])
        record = data[at + _HEAD : at + _HEAD + size]
        whole += record
        if whole[:1] != bytes([_CLIENT_HELLO]) and (whole or not size):
            raise HelloRefused("not a ClientHello")
        length = int.from_bytes(whole[1:4]) if len(whole) >= 4 else 0
        if length > LONGEST_HELLO or size > LONGEST_HELLO + 4:
            raise HelloRefused(f"a ClientHello of more than {LONGEST_HELLO} bytes")
        if len(record) < size:
            return None
        if len(whole) >= 4 and len(whole) >= 4 + length:
            if len(whole) > 4 + length:
                raise HelloRefused("more than a ClientHello")
            return whole[4:]
        at += _HEAD + size
    raise HelloRefused(f"a ClientHello in more than {RECORDS} records")


def _name(hello: bytes) -> str:
    read = _Bytes(hello)
    read.take(2 + 32)  # version and random
    for size in (1, 2, 1):  # session, cipher suites, compressions
        read.vector(size)
    if read.done:
        raise HelloRefused("no extensions, so no name")
    found = dict[int, bytes]()
    for kind, body in _extensions(read.vector(2)):
        if kind in found:
            raise HelloRefused(f"extension {kind} twice")
        found[kind] = body
    if not read.done:
        raise HelloRefused("bytes after the extensions")
    if found.keys() & _ENCRYPTED:
        raise HelloRefused("an encrypted ClientHello (ECH)")
    if _SERVER_NAME not in found:
        raise HelloRefused("no server name (SNI)")
    outer = _Bytes(found[_SERVER_NAME])
    entry = _Bytes(outer.vector(2))
    kind, name = entry.number(1), entry.vector(2)
    if kind != _HOST_NAME or not entry.done or not outer.done:
        raise HelloRefused("not one server name")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise HelloRefused("no name of a host") from None


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    read = _Bytes(data)
    while not read.done:
        kind = read.number(2)
        yield kind, read.vector(2)
