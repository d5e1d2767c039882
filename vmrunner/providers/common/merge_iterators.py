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
#: Seconds between looks of a reader, whose items are not taken, at whether they still may be.
_TURN: Final = 0.1


class _Batch(NamedTuple, Generic[T]):
    """One item, or the end of a source."""

    items: tuple[T, ...] = ()
    error: BaseException | None = None


def merged(sources: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
    """Yield all items of all sources, as they come; each source is read in a thread of its own,
    and ahead of the consumer. Raises what a source raises."""
    with read_ahead(sources) as items:
        yield from items


@contextlib.contextmanager
def read_ahead(sources: Sequence[Callable[[], Iterator[T]]]) -> Iterator[Iterator[T]]:
    """Begin to read them at once, and give the block what `merged` yields. When the block ends,
    none is read on."""
    results: queue.Queue[_Batch[T]] = queue.Queue(maxsize=_AHEAD * len(sources))
    over = threading.Event()

    def put(result: _Batch[T]) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                results.put(result, timeout=_TURN)
                return True
        return False

    for source in sources:
        threading.Thread(target=_read, args=(source, put), daemon=True).start()
    try:
        yield _taken(results, len(sources))
    finally:
        over.set()


def _taken(results: queue.Queue[_Batch[T]], running: int) -> Iterator[T]:
    """Yield what so many readers tell, until each told its end."""
    while running:
        result = results.get()
        if result.error is not None:
            raise result.error
        running -= not result.items
        yield from result.items


def _read(source: Callable[[], Iterator[T]], put: Callable[[_Batch[T]], bool]) -> None:
    """Put all items of a source, while they are taken, and its end."""
    try:
        for item in source():
            if not put(_Batch((item,))):
                return
    except BaseException as error:  # noqa: BLE001 - raised where the items are read
        put(_Batch(error=error))
    else:
        put(_Batch())
