"""Several iterators read side by side: one that waits holds up no other."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: Seconds between looks of a reader, whose items nobody takes, at whether anybody will.
_TURN: Final = 0.1


class _Told(NamedTuple, Generic[T]):
    """One item, or the end of a source."""

    items: tuple[T, ...] = ()
    error: BaseException | None = None


def merged(sources: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
    """Yield all items of all sources, as they come; each source is read in a thread of its own.
    Raises what a source raises."""
    if len(sources) == 1:
        yield from sources[0]()
        return
    told: queue.Queue[_Told[T]] = queue.Queue(maxsize=len(sources))
    over = threading.Event()

    def put(one: _Told[T]) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                told.put(one, timeout=_TURN)
                return True
        return False

    for source in sources:
        threading.Thread(target=_read, args=(source, put), daemon=True).start()
    left = len(sources)
    try:
        while left:
            one = told.get()
            if one.error is not None:
                raise one.error
            left -= not one.items
            yield from one.items
    finally:
        over.set()


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
