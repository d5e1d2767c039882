"""Iterators read side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vmrunner.providers.common.merge_iterators import merged


def test_one_that_waits_holds_up_no_other() -> None:
    go = threading.Event()

    def waits() -> Iterator[str]:
        assert go.wait(60)
        yield "late"

    items = merged([waits, lambda: iter(["a", "b"])])
    assert [next(items), next(items)] == ["a", "b"]
    go.set()
    assert list(items) == ["late"]


def test_what_one_raises_is_raised() -> None:
    def breaks() -> Iterator[str]:
        yield "first"
        raise ValueError("enough")

    items = merged([breaks, lambda: iter(())])
    assert next(items) == "first"
    with pytest.raises(ValueError, match="enough"):
        list(items)


def test_whoever_stops_reading_ends_the_readers() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    items = merged([endless, lambda: iter(())])
    next(items)
    items.close()  # type: ignore[attr-defined]  # a generator's own
    assert ended.wait(60)
