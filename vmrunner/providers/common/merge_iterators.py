"""Several iterators read side by side: one that waits holds up no other."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: Items of each source, in the mean, that may wait to be taken: each may be a page of 1,000 things.
_AHEAD: Final = 4
#: Seconds between looks of a reader, whose items nobody takes, at whether anybody will.
_TURN: Final = 0.1


class _Told(NamedTuple, Generic[T]):
    """One item, or the end of a source."""

    items: tuple[T, ...] = ()
    error: BaseException | None = None


def merged(sources: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
    """Yield all items of all sources, as they come; each source is read in a thread of its own,
    and ahead of whoever takes the items. Raises what a source raises."""
    with read_ahead(sources) as items:
        yield from items


@contextlib.contextmanager
def read_ahead(sources: Sequence[Callable[[], Iterator[T]]]) -> Iterator[Iterator[T]]:
    """Begin to read them at once, and give the block what `merged` yields. When the block ends,
    none is read on."""
    told: queue.Queue[_Told[T]] = queue.Queue(maxsize=_AHEAD * len(sources))
    over = threading.Event()

    def put(one: _Told[T]) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                told.put(one, timeout=_TURN)
                return True
        return False

    for source in sources:
        threading.Thread(target=_read, args=(source, put), daemon=True).start()
    try:
        yield _taken(told, len(sources))
    finally:
        over.set()


def _taken(told: queue.Queue[_Told[T]], left: int) -> Iterator[T]:
    """Yield what so many readers tell, until each told its end."""
    while left:
        one = told.get()
        if one.error is not None:
            raise one.error
        left -= not one.items
        yield from one.items


def _read(source: Callable[[], Iterator[T]], put: Callable[[_Told[T]], bool]) -> None:
    """Put all items of a source, while anybody takes them, and its end."""
    try:
        for item in source():
            if not put(_Told((item,))):
                return
    except BaseException as error:  # noqa: BLE001 - raised where the items are read
        put(_Told(error=error))
    else:
        put(_Told())
