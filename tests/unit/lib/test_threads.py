from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from tests.support.inline_pool import Inline
from vmrunner.errors import Throttled
from vmrunner.lib.threads import GIVE_UP, CallSlot, DaemonThreadPool


def test_a_lane_makes_one_call_and_brings_its_answer() -> None:
    done: list[int] = []
    slot: CallSlot[int] = CallSlot(Inline(), lambda: 0.0, lambda: done.append(1))
    assert slot.take() is None
    slot.send(lambda: 7)
    assert not slot.free
    call = slot.take()
    assert call is not None
    assert call.result() == 7
    assert slot.free
    assert done == [1]


def test_an_error_belongs_to_the_reader() -> None:
    slot: CallSlot[int] = CallSlot(Inline(), lambda: 0.0, lambda: None)
    slot.send(lambda: 1 // 0)
    call = slot.take()
    assert call is not None
    with pytest.raises(ZeroDivisionError):
        call.result()


def test_a_call_that_never_comes_back_is_given_up() -> None:
    now = [0.0]

    class Never:
        def submit(self, work: object) -> Future[int]:
            return Future()

    slot: CallSlot[int] = CallSlot(Never(), lambda: now[0], lambda: None)
    slot.send(lambda: 1)
    assert slot.take() is None
    now[0] = GIVE_UP
    call = slot.take()
    assert call is not None
    with pytest.raises(TimeoutError):
        call.result()
    assert slot.free


def test_threads_work_side_by_side_and_end() -> None:
    pool = DaemonThreadPool("test", 2)
    both = threading.Barrier(2, timeout=30)
    calls = [pool.submit(both.wait) for _ in range(2)]
    assert sorted(call.result(30) for call in calls) == [0, 1]
    assert [pool.submit(lambda n=n: n).result(30) for n in range(20)] == list(range(20))
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(30)
    pool.close()


def test_a_call_without_any_thread_is_throttled_and_later_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = DaemonThreadPool("create-fake", 2)
    with monkeypatch.context() as host:
        host.setattr(threading.Thread, "start", start)
        assert isinstance(pool.submit(lambda: 1).exception(0), Throttled)
    assert pool.submit(lambda: 2).result(60) == 2
    pool.close()


def test_where_no_thread_starts_those_there_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool without a bound has some from the start."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, gate = DaemonThreadPool("test", None), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        calls = [pool.submit(lambda: gate.wait(60)) for _ in range(9)]
        gate.set()
        assert all(call.result(30) for call in calls)
    pool.close()
