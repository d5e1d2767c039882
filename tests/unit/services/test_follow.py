"""Who follows a build waits for its end, and lets nothing but its end end that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.errors import LedgerError
from vmrunner.model import BuildRecord, BuildSpec, BuildState, Chunk, Step
from vmrunner.services import follow
from vmrunner.services.follow import BuildFollower

SPEC = BuildSpec(
    steps=(Step(run="make"),), provider="p", container="debian:trixie", timeout=60, ttl=600
)
ROW = BuildRecord(id="b-1", spec=SPEC, state=BuildState.RUNNING, created_at=0, state_since=0)
HELD, FINISHED = (replace(ROW, state=s) for s in (BuildState.HELD, BuildState.FINISHED))
AWAY = LedgerError("away")
SOON = follow.FOLLOW_INTERVAL / follow.OFTENER


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes where a test lets it."""
    monkeypatch.setattr(follow.time, "monotonic", lambda: 0.0)


class World:
    """A ledger and an engine's host that answer as told, and a log of what was asked of them."""

    def __init__(self, *states: BuildRecord, vms: tuple[int, ...] = ()) -> None:
        self._states = iter(states)
        self._vms = iter(vms)
        self._chunks = iter(range(100))
        self.away = 0  # so many calls of the host find no ledger
        self.steps: list[str] = []

    def get(self, _: str) -> BuildRecord:
        self.steps.append("look")
        return next(self._states)

    def list(self, **_: Any) -> list[int]:
        return [0] * next(self._vms)

    def read(self, *_: Any) -> list[Chunk]:
        seq = next(self._chunks)
        if seq % 2:  # every other answer has nothing more
            return []
        return [Chunk(seq=seq, attempt=1, offset=seq, line=seq, time=0.0, data=b"%d\n" % seq)]

    def ensure(self, provider: str) -> None:
        if self.away:
            self.away -= 1
            raise AWAY
        self.steps.append(f"serve {provider}")

    def follower(self, **how: Any) -> BuildFollower:
        ledger: Any = SimpleNamespace(builds=self, instances=self)
        host: Any = self
        how = {
            "leave": lambda: self.steps.append("leave?"),
            "sleep": lambda seconds: self.steps.append(f"sleep {seconds}"),
            "ledger_away": lambda error: self.steps.append(str(error)),
        } | how
        log: Any = self
        return BuildFollower(ledger, host, "b-1", log=log, **how)


def test_the_last_look_at_the_log_is_after_the_end() -> None:
    world = World(ROW, FINISHED)
    rounds: Iterator[bytes] = (chunk.data for chunk in world.follower().chunks())
    assert list(rounds) == [b"0\n", b"2\n"]
    assert world.steps == ["look", "leave?", "serve p", f"sleep {SOON}", "look"]


def test_it_looks_often_only_while_there_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: clock[0])
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        clock[0] += 0.5

    connecting = replace(ROW, state=BuildState.CONNECTING)
    world = World(connecting, connecting, connecting, connecting, ROW, FINISHED)
    list(world.follower(sleep=sleep).rounds())
    later = follow.FOLLOW_INTERVAL
    assert sleeps == [SOON, later / 2, later, later, SOON]


def test_who_may_leave_starts_no_engine_on_the_way_out() -> None:
    world = World(ROW)

    def leave() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(world.follower(leave=leave).rounds())
    assert world.steps == ["look"]


def test_a_ledger_away_amid_an_engines_search_is_waited_for() -> None:
    world = World(ROW, FINISHED)
    world.away = 2
    list(world.follower().rounds())
    wait, soon = ["leave?", f"sleep {follow.LEDGER_RETRY}"], f"sleep {SOON}"
    assert world.steps == ["look", "leave?", "away", *wait, *wait, "serve p", soon, "look"]


def test_a_ledger_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LEDGER_TIMEOUT", 0.0)
    world = World(ROW)
    world.away = 1
    with pytest.raises(LedgerError, match="away"):
        list(world.follower().rounds())


@pytest.mark.parametrize(
    ("states", "vms"),
    [((HELD,), ()), ((FINISHED,), (0,)), ((ROW, FINISHED, FINISHED), (1, 0))],
    ids=["held", "gone", "dying"],
)
def test_it_settles_when_its_vm_is_gone_or_held(
    states: tuple[BuildRecord, ...], vms: tuple[int, ...]
) -> None:
    world = World(*states, vms=vms)
    assert world.follower().settle()
    assert world.steps.count("look") == len(states)


def test_a_vm_that_stays_is_not_waited_for_for_ever() -> None:
    assert not World(*[FINISHED] * 3, vms=(1, 1, 1)).follower().settle(seconds=0.0)
