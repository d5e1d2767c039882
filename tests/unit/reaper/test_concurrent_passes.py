"""The passes over one provider, when calls never come back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.inline_pool import Inline
from vmrunner.engine.engine import Engine
from vmrunner.errors import Throttled
from vmrunner.providers.fake import Clock
from vmrunner.reaper.reaper import LOST, ConcurrentPasses
from vmrunner.reaper.report import Report


@pytest.fixture
def engine(parts: EngineParts) -> Engine:
    return parts.engine()


def test_passes_that_never_end_stop_no_other(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """However many there are: each keeps a thread, and none of them is waited for."""
    clock, gate = Clock(), threading.Event()
    passes = ConcurrentPasses(engine.context.reap_threads, clock)

    def sweep() -> Report:
        gate.wait(60)
        return Report()

    key, other = ("local", "sweep"), ("local", "pass")
    try:
        for n in range(1, 13):
            assert "local" in passes.run({key: sweep}, 0).ongoing
            report = passes.run({other: lambda: Report(alarms=("done",))}, 5)
            assert report.alarms == ("done",), f"after {n} lost passes"
            clock.advance(LOST + 1)
    finally:
        gate.set()
        engine.close()
    lost = [r for r in caplog.records if "its sweep hangs" in r.getMessage()]
    assert [r.levelno for r in lost] == [logging.ERROR] * 11


def test_a_pass_that_goes_on_is_not_begun_twice(engine: Engine) -> None:
    clock, gate, began = Clock(), threading.Event(), []
    passes = ConcurrentPasses(engine.context.reap_threads, clock)

    def sweep() -> Report:
        began.append(1)
        gate.wait(60)
        return Report(alarms=("done",))

    key = ("local", "sweep")
    try:
        for _ in range(10):
            assert passes.run({key: sweep}, 0.0).ongoing == ("local",)
            clock.advance(LOST / 20)
    finally:
        gate.set()
    assert passes.run({key: sweep}, 30.0).alarms == ("done",)
    assert len(began) == 1
    engine.close()


def test_one_that_gets_no_thread_keeps_no_other() -> None:
    class NoThread(Inline):
        def submit(self, work: Callable[[], Any]) -> Any:
            refused: Future[Any] = Future()
            refused.set_exception(Throttled("can't start new thread"))
            return refused

    pools: dict[str, Inline] = {"a": NoThread(), "b": Inline()}
    passes = ConcurrentPasses(lambda name: pools[name], Clock())
    work = {(name, "pass"): lambda: Report(alarms=("done",)) for name in pools}
    report = passes.run(work, 5)
    assert report.alarms == ("done",)
    assert report.unread == ("a: its pass was not begun: can't start new thread",)
    pools["a"] = Inline()
    assert passes.run(work, 5).alarms == ("done", "done")
