"""When an engine ticks: at once for a hint, and no more often than makes sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.engine import engine as engines
from vmrunner.engine.engine import HEARTBEAT, MIN_TICK, Engine
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.ledger import Member
from vmrunner.model import Process


@pytest.fixture
def engine(parts: EngineParts) -> Iterator[Engine]:
    made = parts.engine(monotonic=parts.clock, clock=parts.clock)
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


def member(parts: EngineParts, name: str) -> Member | None:
    """What the ledger says of an engine."""
    return next((node for node in parts.ledger.engines.list() if node.id == name), None)


def test_a_living_engine_is_silent_for_no_lease(parts: EngineParts, engine: Engine) -> None:
    """Nor does it write at every tick."""
    beats = set()
    for _ in range(120):
        engine.tick()
        found = member(parts, engine.id)
        assert found is not None
        assert parts.clock() - found.seen_at <= HEARTBEAT < MEMBER_LEASE / 3
        beats.add(found.seen_at)
        parts.clock.advance(1.0)
    assert len(beats) <= 120 / HEARTBEAT


def test_an_engine_that_others_took_for_dead_joins_again(
    parts: EngineParts, engine: Engine
) -> None:
    engine.tick()
    parts.ledger.engines.leave(engine.id)
    parts.clock.advance(HEARTBEAT)
    engine.tick()
    assert member(parts, engine.id) is not None


def test_the_row_of_a_dead_engine_stays_for_a_day(parts: EngineParts, engine: Engine) -> None:
    """So long people can ask who that was."""
    dead = Process(machine="other", boot="b", pid_namespace="n", pid=1, started=1)
    parts.join("e-dead", dead)
    for hours, stays in ((23.0, True), (2.0, False)):
        parts.clock.advance(hours * 3600.0)
        for _ in range(2 * int(MEMBER_LEASE / HEARTBEAT)):
            engine.tick()
            parts.clock.advance(HEARTBEAT)
        assert (member(parts, "e-dead") is not None) is stays


def test_what_sessions_need_is_loaded_while_a_vm_comes(parts: EngineParts) -> None:
    loads: list[str] = []
    works: dict[str, Callable[[], None]] = {}
    engine = parts.engine(
        monotonic=parts.clock,
        clock=parts.clock,
        pool=lambda *_: parts.pool,
        spawn=works.__setitem__,
        load_sessions=lambda: loads.append("loaded"),
    )
    engine.tick()
    assert not works  # nothing is on its way
    parts.submit()
    for _ in range(3):
        engine.tick()
        parts.clock.advance(1.0)
    works["load sessions"]()
    assert loads == ["loaded"]
    engine.close()
