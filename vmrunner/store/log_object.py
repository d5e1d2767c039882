"""The log of a build that ended, as one object: its bytes, and an index of its chunks.

The bytes come first and are all of the log's, so a range of the log is a range of the object. The
index has what a chunk has in the ledger, so a stored log is read as a live one is.
"""

from __future__ import annotations

import bisect
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.model import Chunk, ChunkPlace, StoredObject
from vmrunner.store import ObjectStore, damaged
from vmrunner.store.trailer import read_index, write_index

if TYPE_CHECKING:
    from vmrunner.lib.archive.files import ByteSink

_AT_ONCE: Final = 4 << 20  # bytes of one read, unless a chunk is larger
RANGE_READ: Final = 1 << 20  # … of a range, whose bytes wait while they are sent
CACHED: Final = 50_000  # chunks, some 20 MiB, of all logs whose indexes are kept


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield which chunks of these sizes, in order, are read at once for a range."""
    first = size = 0
    for n, more in enumerate(sizes):
        if size and size + more > RANGE_READ:
            yield slice(first, n)
            first, size = n, 0
        size += more
    if sizes:
        yield slice(first, len(sizes))


def write_log(file: ByteSink, chunks: Iterable[Chunk]) -> None:
    """Write a log. `chunks` are all of it, in order."""
    index = []
    for chunk in chunks:
        file.write(chunk.data)
        index.append(
            [
                chunk.seq,
                chunk.attempt,
                chunk.time,
                chunk.offset,
                chunk.line,
                len(chunk.data),
                zlib.crc32(chunk.data),
            ]
        )
    write_index(file, index)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A chunk without its bytes; `at` is where these begin in the log."""

    seq: int
    attempt: int
    time: float
    offset: int
    line: int
    size: int
    crc: int
    at: int


class IndexCache:
    """The indexes of logs that were read last, by the hash of their objects. Thread-safe."""

    def __init__(self, most: int = CACHED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._all: OrderedDict[str, list[_Entry]] = OrderedDict()
        self._size = 0

    def get(self, digest: str) -> list[_Entry] | None:
        with self._lock:
            found = self._all.get(digest)
            if found is not None:
                self._all.move_to_end(digest)
            return found

    def put(self, digest: str, entries: list[_Entry]) -> None:
        with self._lock:
            self._size += len(entries) - len(self._all.pop(digest, ()))
            self._all[digest] = entries
            while self._size > self._most:
                _, old = self._all.popitem(last=False)
                self._size -= len(old)


#: A server is asked for a long log part by part.
_read_last = IndexCache()


class StoredLog:
    """A log in the store. Its index is read when it is first asked for."""

    def __init__(self, store: ObjectStore, item: StoredObject) -> None:
        self._store = store
        self._object = item
        self._entries: list[_Entry] | None = None

    @property
    def size(self) -> int:
        """The size of the log in bytes."""
        entries = self._index()
        return entries[-1].at + entries[-1].size if entries else 0

    def read(self, after_line: int = 0, after_seq: int = 0, limit: int = 1000) -> list[Chunk]:
        """Return chunks in order, at most `limit` and about as many as fit into memory well: those
        of `Logs.read` of the ledger. None when there are no more. Raises StoreError."""
        entries, after = self._index(), after_seq
        if after_line > 0:
            ending = bisect.bisect_left(entries, after_line, key=lambda entry: entry.line)
            after = max(after, (entries[ending - 1].seq if ending else 1) - 1)
        first = bisect.bisect_right(entries, after, key=lambda entry: entry.seq)
        wanted: list[_Entry] = []
        size = 0
        for entry in entries[first : first + limit]:
            size += entry.size
            if wanted and size > _AT_ONCE:
                break
            wanted.append(entry)
        return list(self._chunks(wanted))

    def places(self) -> list[ChunkPlace]:
        """All chunks without their bytes, in order."""
        return [
            ChunkPlace(entry.seq, entry.attempt, entry.offset, entry.line, entry.size)
            for entry in self._index()
        ]

    def range(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from one offset to the other, each checked as part of its chunk."""
        entries = self._index()
        first = max(0, bisect.bisect_right(entries, start, key=lambda entry: entry.at) - 1)
        last = bisect.bisect_left(entries, stop, key=lambda entry: entry.at)
        wanted = entries[first:last]
        for batch in batches([entry.size for entry in wanted]):
            at = wanted[batch][0].at
            yield self._bytes(wanted[batch])[max(0, start - at) : stop - at]

    def _chunks(self, entries: list[_Entry]) -> Iterator[Chunk]:
        data, at = self._bytes(entries), 0
        for entry in entries:
            yield Chunk(
                seq=entry.seq, attempt=entry.attempt, time=entry.time, offset=entry.offset,
                line=entry.line, data=data[at : at + entry.size],
            )  # fmt: skip
            at += entry.size

    def _bytes(self, entries: list[_Entry]) -> bytes:
        """The bytes of some chunks that follow each other, each checked."""
        size = sum(entry.size for entry in entries)
        data = b"".join(self._store.read(self._object.name, entries[0].at, size)) if size else b""
        view, at = memoryview(data), 0
        for entry in entries:
            piece = view[at : at + entry.size]
            if len(piece) != entry.size or zlib.crc32(piece) != entry.crc:
                raise damaged(self._object.name)
            at += entry.size
        return data

    def _index(self) -> list[_Entry]:
        if self._entries is None:
            self._entries = _read_last.get(self._object.digest)
        if self._entries is None:
            found: list[_Entry] = []
            at = 0
            for row in read_index(self._store, self._object.name, self._object.size):
                seq, attempt, time, offset, line, size, crc = row
                found.append(_Entry(seq, attempt, time, offset, line, size, crc, at))
                at += size
            self._entries = found
            _read_last.put(self._object.digest, found)
        return self._entries
