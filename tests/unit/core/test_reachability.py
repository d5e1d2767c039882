"""Since when a watcher reaches a place without a break."""

from __future__ import annotations

import math

from vmrunner.core.reachability import Reachability
from vmrunner.model import Scope

A, B = Scope("fake", "account", "a"), Scope("fake", "account", "b")


def test_a_place_is_reached_since_its_first_answer() -> None:
    """Told on the clock of whoever wants to know."""
    reach = Reachability(gap=30.0)
    for now in (100.0, 120.0, 140.0):
        reach.record(A, now)
    assert reach.since([A, B, A], 150.0, 5150.0) == {A: 5100.0, B: math.inf}
    assert reach.since([A], 150.0, 90.0) == {A: 40.0}


def test_after_a_break_all_begins_anew() -> None:
    reach = Reachability(gap=30.0)
    reach.record(A, 100.0)
    assert reach.since([A], 130.0, 130.0) == {A: 100.0}
    assert reach.since([A], 131.0, 131.0) == {A: math.inf}, "it is dark by now"
    reach.record(A, 131.0)
    assert reach.since([A], 140.0, 140.0) == {A: 131.0}
    reach.record(A, 161.0)
    assert reach.since([A], 161.0, 161.0) == {A: 131.0}, "a look in time is no break"


def test_a_place_that_does_not_answer_is_dark() -> None:
    reach = Reachability()
    reach.record(A, 100.0)
    reach.record(B, 100.0)
    reach.lost(A)
    reach.lost(A)
    assert reach.since([A, B], 101.0, 101.0) == {A: math.inf, B: 100.0}
    reach.record(A, 102.0)
    assert reach.since([A, B], 1e9, 1e9) == {A: 102.0, B: 100.0}
