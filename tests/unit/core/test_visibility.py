"""Since when a watcher sees a place without a break."""

from __future__ import annotations

import math

from vmrunner.core.visibility import Visibility
from vmrunner.model import Scope

A, B = Scope("fake", "account", "a"), Scope("fake", "account", "b")


def test_a_place_is_seen_since_its_first_answer() -> None:
    """Told on the clock of whoever wants to know."""
    sight = Visibility(gap=30.0)
    for now in (100.0, 120.0, 140.0):
        sight.record(A, now)
    assert sight.since([A, B, A], 150.0, 5150.0) == {A: 5100.0, B: math.inf}
    assert sight.since([A], 150.0, 90.0) == {A: 40.0}


def test_after_a_break_sight_begins_anew() -> None:
    sight = Visibility(gap=30.0)
    sight.record(A, 100.0)
    assert sight.since([A], 130.0, 130.0) == {A: 100.0}
    assert sight.since([A], 131.0, 131.0) == {A: math.inf}, "it is dark by now"
    sight.record(A, 131.0)
    assert sight.since([A], 140.0, 140.0) == {A: 131.0}
    sight.record(A, 161.0)
    assert sight.since([A], 161.0, 161.0) == {A: 131.0}, "a look in time is no break"


def test_a_place_that_does_not_answer_is_dark() -> None:
    sight = Visibility()
    sight.record(A, 100.0)
    sight.record(B, 100.0)
    sight.lost(A)
    sight.lost(A)
    assert sight.since([A, B], 101.0, 101.0) == {A: math.inf, B: 100.0}
    sight.record(A, 102.0)
    assert sight.since([A, B], 1e9, 1e9) == {A: 102.0, B: 100.0}
