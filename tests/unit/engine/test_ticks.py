"""When an engine ticks: at once for a hint, and no more often than makes sense."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.engine import engine as engines
from vmrunner.engine.engine import MIN_TICK, Engine


@pytest.fixture
def engine(parts: EngineParts) -> Iterator[Engine]:
    made = parts.engine(monotonic=parts.clock)
    yield made
    made.close()


def test_a_hint_waits_for_no_tick_of_the_timer(
    parts: EngineParts, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of many hints, one after another, those that come soon share a tick."""
    came = iter([False, True, True])  # the timer, a hint at once, and another
    began = parts.clock()
    ticks: list[float] = []

    def tick() -> float:
        ticks.append(parts.clock() - began)
        return 1.0

    monkeypatch.setattr(engine, "tick", tick)
    monkeypatch.setattr(engine._listener, "wait", lambda _: next(came))
    monkeypatch.setattr(engines.time, "sleep", parts.clock.advance)
    engine.run(lambda: len(ticks) == 4)
    assert ticks == pytest.approx([0.0, 0.0, 0.0, MIN_TICK])
