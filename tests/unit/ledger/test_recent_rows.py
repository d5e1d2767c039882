"""Rows of lists that are asked for again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmrunner.errors import Unreadable
from vmrunner.ledger.row_reading import RecentRows


class Decoded:
    """A value of its own for each time that a row is decoded."""

    def __init__(self, row: Sequence[Any]) -> None:
        if row[1] == "bad":
            raise Unreadable("bad")
        self.row = row


def test_an_unchanged_row_is_the_same_value() -> None:
    rows = RecentRows(Decoded, most=10, longest=100)
    first = rows.read([("b-1", "x"), ("b-2", "y")])
    second = rows.read([("b-2", "y"), ("b-1", "z")])
    assert second[0] is first[1]
    assert [value.row for value in second] == [("b-2", "y"), ("b-1", "z")]


def test_a_row_that_turns_bad_is_unread() -> None:
    rows = RecentRows(Decoded, most=10, longest=100)
    rows.read([("b-1", "x")])
    found = rows.read([("b-1", "bad")])
    assert (list(found), found.unread) == ([], {"b-1"})


def test_no_more_rows_are_kept_than_most() -> None:
    rows = RecentRows(Decoded, most=2, longest=5)
    first = rows.read([("b-1", "x"), ("b-2", "y"), ("b-3", "z"), ("b-4", "too long")])
    again = rows.read([("b-4", "too long"), ("b-3", "z"), ("b-2", "y"), ("b-1", "x")])
    kept = [new is old for new, old in zip(again, reversed(first), strict=True)]
    assert kept == [False, True, True, False]
