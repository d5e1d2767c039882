"""An index at the end of an object. The bytes come first: they can be written before the index is
known, and read by range without it."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import StoreError
from vmrunner.store import ObjectStore, damaged

if TYPE_CHECKING:
    from vmrunner.lib.archive.files import ByteSink

#: The packed index's length and hash, and what says that this is one.
_END: Final = struct.Struct(">Q32s8s")
_MAGIC: Final = b"vmrindx1"
_TAIL: Final = 1 << 16  # bytes that are read at first: mostly all of the index


def write_index(file: ByteSink, index: Any) -> None:
    """Append an index, of what JSON can say."""
    packed = zlib.compress(json.dumps(index, separators=(",", ":")).encode())
    file.write(packed)
    file.write(_END.pack(len(packed), hashlib.sha256(packed).digest(), _MAGIC))


def read_index(store: ObjectStore, name: str, size: int) -> Any:
    """Return the index of an object of this size. Raises StoreError when it is damaged, or out of
    reach, NotFound."""
    start = max(0, size - _TAIL)
    tail = b"".join(store.read(name, start))
    if len(tail) < _END.size:
        raise damaged(name)
    length, digest, magic = _END.unpack(tail[-_END.size :])
    begin = size - _END.size - length
    if magic != _MAGIC or begin < 0:
        raise damaged(name)
    before = b"".join(store.read(name, begin, start - begin)) if begin < start else b""
    packed = before + tail[max(0, begin - start) : -_END.size]
    if hashlib.sha256(packed).digest() != digest:
        raise damaged(name)
    try:
        return json.loads(zlib.decompress(packed))
    except (ValueError, zlib.error) as error:
        raise StoreError(f"the index of {name} cannot be read: {error}") from error
