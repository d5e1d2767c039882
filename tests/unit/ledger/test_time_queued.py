"""Seconds in the queue, read without the other phases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmrunner.ledger import row_codec as codec
from vmrunner.model import BuildState

TIMES = st.floats(min_value=0, max_value=2e9)


@given(st.lists(st.tuples(st.sampled_from(BuildState), TIMES), max_size=12))
def test_it_is_what_all_phases_together_say(moves: list[tuple[BuildState, float]]) -> None:
    text = "".join(codec.phase_text(state, at) for state, at in moves)
    stays = [
        phase.ended - phase.started
        for phase in codec.phases(text)
        if phase.state is BuildState.QUEUED and phase.ended is not None
    ]
    assert codec.time_queued(text) == (sum(stays) if stays else None)


def test_each_stay_in_the_queue_counts() -> None:
    text = "queued 1.0\nprovisioning 3.0\nqueued 10.0\nprovisioning 14.5\nfinished 20.0\n"
    assert codec.time_queued(text) == 6.5
    assert codec.time_queued("queued 1.0\n") is None
    assert codec.time_queued("queued 1.0\nfinished 3.0\n") == 2.0
    assert codec.time_queued("") is None
