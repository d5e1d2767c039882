from __future__ import annotations

from vmrunner.lib.backoff import backoff


def test_waits_double_up_to_the_longest() -> None:
    assert [backoff(1.0, failures, 30.0) for failures in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff(1.0, 10**9, 300.0) == 300
