"""The log of a build as everybody reads it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING

from vmrunner.ledger.logs import cut
from vmrunner.model import Chunk, ChunkPlace
from vmrunner.store import ObjectStore
from vmrunner.store.log_object import StoredLog, batches

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


class BuildLog:
    """The log of one build, wherever it lies: in the ledger until the build has ended, and then in
    the store. Raises StoreError when it is there and cannot be had."""

    def __init__(self, ledger: Ledger, store: Callable[[], ObjectStore], build: str) -> None:
        self._ledger = ledger
        self._store = store
        self._build = build
        self._stored: StoredLog | None = None

    def read(self, after_line: int = 0, after_seq: int = 0, limit: int = 100) -> Sequence[Chunk]:
        """Return chunks in order, at most `limit`; none when there are none yet. With `after_line`
        the first is cut so that it begins where that line ends."""
        if self._stored is None:
            live = self._ledger.logs
            chunks = live.read(self._build, after_line, after_seq, limit)
            # Only then: chunks go once it is said where the object is, the last of them first.
            if chunks or not self._is_stored():
                return chunks
        assert self._stored is not None
        return cut(self._stored.read(after_line, after_seq, limit), after_line)

    def places(self) -> list[ChunkPlace]:
        """All chunks without their bytes, in order."""
        if not self._is_stored():
            places = self._ledger.logs.places(self._build)
            if not self._is_stored():  # still: those are all
                return places
        assert self._stored is not None
        return self._stored.places()

    def sized(self) -> tuple[int, Callable[[int, int], Iterator[bytes]]]:
        """The bytes that the log has now, and a reader of those from one offset to
        another."""
        if not self._is_stored():
            sizes = self._ledger.logs.sizes(self._build)
            if not self._is_stored():  # still: those are all
                return sum(size for _, size in sizes), lambda a, b: self._live_range(sizes, a, b)
        assert self._stored is not None
        return self._stored.size, self._stored.range

    def _live_range(
        self, sizes: Sequence[tuple[int, int]], start: int, stop: int
    ) -> Iterator[bytes]:
        offsets = list(accumulate((size for _, size in sizes), initial=0))
        first = max(0, bisect_right(offsets, start) - 1)
        last = bisect_left(offsets, stop)
        wanted, offsets = sizes[first:last], offsets[first:last]
        for batch in batches([size for _, size in wanted]):
            seqs = [seq for seq, _ in wanted[batch]]
            chunks = self._ledger.logs.read(self._build, after_seq=seqs[0] - 1, limit=len(seqs))
            for at, seq, chunk in zip_longest(offsets[batch], seqs, chunks):
                if chunk is None or chunk.seq != seq:  # stored meanwhile, or removed
                    if self._is_stored():
                        assert self._stored is not None
                        yield from self._stored.range(max(start, at), stop)
                    return
                yield chunk.data[max(0, start - at) : stop - at]

    def _is_stored(self) -> bool:
        if self._stored is None:
            item = self._ledger.objects.log_of(self._build)
            if item is not None:
                self._stored = StoredLog(self._store(), item)
        return self._stored is not None
