"""Questions to a ledger that may never answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vmrunner.errors import LedgerError
from vmrunner.lib.threads import DaemonThreadPool
from vmrunner.reaper.ledger_calls import LOST_CALL, LedgerCalls


class Played:
    def __init__(self, patience: float) -> None:
        self.now, self.over = 0.0, threading.Event()
        self.starts = 0
        self.pool = DaemonThreadPool("test", None)
        self.calls = LedgerCalls(self.pool, patience=patience, monotonic=lambda: self.now)

    def hangs(self) -> str:
        self.starts += 1
        self.over.wait(60)
        return "late"


@pytest.fixture
def played() -> Iterator[Played]:
    played = Played(0.05)
    yield played
    played.over.set()
    played.pool.close()


def test_an_answer_and_an_error_are_the_callers(played: Played) -> None:
    assert LedgerCalls(played.pool)(lambda: 5) == 5

    def times_out() -> None:
        raise TimeoutError("its own")

    for error in (lambda: {}["x"], times_out):
        with pytest.raises((KeyError, TimeoutError)) as raised:
            LedgerCalls(played.pool)(error)
        assert not isinstance(raised.value, LedgerError)


def test_while_one_hangs_nobody_waits(played: Played) -> None:
    with pytest.raises(LedgerError, match="has not answered for 0 s"):
        played.calls(played.hangs)
    for now in (1.0, 100.0, LOST_CALL - 1):
        played.now = now
        with pytest.raises(LedgerError, match=f"has not answered for {now:.0f} s"):
            played.calls(lambda: 5)
    assert played.starts == 1


def test_one_that_is_lost_is_tried_again(played: Played) -> None:
    with pytest.raises(LedgerError):
        played.calls(played.hangs)
    played.now = LOST_CALL
    with pytest.raises(LedgerError):
        played.calls(played.hangs)
    assert played.starts == 2
    played.over.set()
    for call in list(played.calls._open):
        assert call.result(30) == "late"
    assert LedgerCalls(played.pool)(lambda: 5) == 5
    assert played.calls(lambda: 6) == 6
