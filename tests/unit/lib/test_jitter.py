"""Random pauses of ours leave `random` to others."""

from __future__ import annotations

import random

from vmrunner.lib import jitter


def test_a_pause_draws_nothing_that_others_would() -> None:
    state = random.getstate()
    assert 0.8 <= jitter.between(0.8, 1.2) <= 1.2
    assert random.getstate() == state
