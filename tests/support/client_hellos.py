"""ClientHellos: of OpenSSL, and taken apart by hand."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

SNI, ECH, PADDING = 0, 0xFE0D, 21


def real(name: str | None) -> bytes:
    """Return what OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("it did not wait for a server")


def names(*entries: str, kind: int = 0) -> bytes:
    """Return the body of a server name extension."""
    listed = b"".join(bytes([kind]) + sized(name.encode(), 2) for name in entries)
    return sized(listed, 2)


def made(*extensions: tuple[int, bytes], after: bytes = b"") -> bytes:
    """Return the message of a hello with these extensions. `after`: what follows them."""
    listed = b"".join(kind.to_bytes(2) + sized(body, 2) for kind, body in extensions)
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + sized(listed, 2) + after
    return b"\1" + sized(body, 3)


def recorded(message: bytes, ends: Iterable[int] = ()) -> bytes:
    """Return a message in records that end there, and at its end."""
    found, at = b"", 0
    for end in (*ends, len(message)):
        found += b"\x16\3\1" + sized(message[at:end], 2)
        at = end
    return found


def sized(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size) + data
