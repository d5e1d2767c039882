from __future__ import annotations

import itertools

from vmrunner.lib.rare_messages import RareMessage


def test_it_is_due_at_once_and_ever_more_rarely() -> None:
    message = RareMessage(1.0, 300.0)
    logged = [now for now in range(3600) if message.is_due(float(now))]
    assert logged[:6] == [0, 1, 3, 7, 15, 31]
    pauses = [after - before for before, after in itertools.pairwise(logged)]
    assert max(pauses) == 300


def test_after_its_end_it_is_due_at_once() -> None:
    message = RareMessage(1.0, 300.0)
    assert not message.reset()
    assert message.is_due(5.0)
    assert not message.is_due(5.5)
    assert message.reset()
    assert message.is_due(5.6)
