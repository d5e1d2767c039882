"""The reading of rows, each by itself: one that cannot be read spoils no other."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from vmrunner.errors import Unreadable

T = TypeVar("T")

log = logging.getLogger("vmrunner")


class Readable(list[T]):
    """Rows that could be read. `unread`: the ids of the others. What is not in the list may be one
    of these: its absence says nothing."""

    unread: frozenset[str] = frozenset()


def readable(decode: Callable[[Sequence[Any]], T], rows: Iterable[Sequence[Any]]) -> Readable[T]:
    """Decode each row by itself: one that cannot be read hides no other."""
    found, unread = Readable[T](), set()
    for row in rows:
        try:
            found.append(decode(row))
        except Unreadable as error:
            unread.add(str(row[0]))
            _complain(str(error))
    found.unread = frozenset(unread)
    return found


class RowCache(Generic[T]):
    """Decodes rows that are read again and again, of which few have changed since the last time.
    What it keeps is what was read last, however much that is."""

    def __init__(self, decode: Callable[[Sequence[Any]], T]) -> None:
        self._decode = decode
        self._cached: dict[str, tuple[Sequence[Any], T]] = {}

    def read(self, rows: Iterable[Sequence[Any]]) -> Readable[T]:
        cached, fresh = self._cached, dict[str, tuple[Sequence[Any], T]]()

        def decode(row: Sequence[Any]) -> T:
            before = cached.get(row[0])
            found = before if before is not None and before[0] == row else (row, self._decode(row))
            fresh[row[0]] = found
            return found[1]

        values = readable(decode, rows)
        self._cached = fresh  # at once: several threads read
        return values


class RecentRows(Generic[T]):
    """Decodes rows of lists, which are asked for again and again: a row that is as it was is the
    same value as before. Keeps the last `most`, of `longest` characters each. Safe in threads."""

    def __init__(self, decode: Callable[[Sequence[Any]], T], most: int, longest: int) -> None:
        self._decode = decode
        self._most, self._longest = most, longest
        self._lock = threading.Lock()
        self._kept = OrderedDict[str, tuple[Sequence[Any], T]]()

    def read(self, rows: Iterable[Sequence[Any]]) -> Readable[T]:
        return readable(self._value, rows)

    def _value(self, row: Sequence[Any]) -> T:
        before = self._kept.get(row[0])
        if before is not None and before[0] == row:
            return before[1]
        value = self._decode(row)
        if sum(len(cell) for cell in row if isinstance(cell, str)) <= self._longest:
            with self._lock:
                self._kept[row[0]] = (row, value)
                self._kept.move_to_end(row[0])
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return value


@lru_cache(maxsize=1024)
def _complain(text: str) -> None:
    """Complain once, though it is read again and again."""
    log.error("%s", text)
