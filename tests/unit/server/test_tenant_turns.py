"""Turns of tenants: one floods, another asks now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from vmrunner.server import tenant_turns
from vmrunner.server.problems import HttpProblem
from vmrunner.server.tenant_turns import (
    BESIDE,
    LONGEST_REST,
    LONGEST_TURN,
    UNDER_WAY,
    WAITING,
    TenantTurns,
)


class Later:
    """What is to be done later, and for which seconds; done when `fire` is called."""

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        self.seconds, self._work, self.over = seconds, work, False

    def cancel(self) -> None:
        self.over = True

    def fire(self) -> None:
        if not self.over:
            self.over = True
            self._work()


class Played:
    """Turns by a clock that is set. `under_way`: whose have begun and not ended; `failures`: with
    what they end, if not well."""

    def __init__(self) -> None:
        self.timers, self.now = list[Later](), 0.0
        self.turns = TenantTurns(self._later, lambda: self.now)
        self.under_way, self.failures = list[str](), dict[str, BaseException]()
        self._done, self._gone = dict[str, asyncio.Event](), dict[str, asyncio.Event]()
        self._tasks = dict[str, asyncio.Task[None]]()

    def _later(self, seconds: float, work: Callable[[], None]) -> Later:
        self.timers.append(Later(seconds, work))
        return self.timers[-1]

    async def ask(self, *names: str) -> None:
        """Ask as the tenant that each name begins with."""
        for name in names:
            self._done[name], self._gone[name] = asyncio.Event(), asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._ask(name))
        await self.settle()

    async def _ask(self, name: str) -> None:
        async def gone() -> None:
            await self._gone[name].wait()

        async with self.turns.turn(name[0], gone):
            self.under_way.append(name)
            try:
                await self._done[name].wait()
                if name in self.failures:
                    raise self.failures[name]
            finally:
                self.under_way.remove(name)

    async def error(self, name: str) -> BaseException | None:
        """Wait until it has ended, and tell with what."""
        (found,) = await asyncio.gather(self._tasks[name], return_exceptions=True)
        return found

    def hang_up(self, name: str) -> None:
        self._gone[name].set()

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()

    async def end(self, *names: str) -> None:
        for name in names:
            self._done[name].set()
            await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def rests(self) -> list[float]:
        """Seconds of each rest that is not over."""
        return [timer.seconds for timer in self._of_rests()]

    async def rest(self) -> None:
        """Let all that rest have rested."""
        for timer in self._of_rests():
            timer.fire()
            await self.settle()

    def _of_rests(self) -> list[Later]:
        return [timer for timer in self.timers if not timer.over and timer.seconds != LONGEST_TURN]

    async def end_all(self) -> None:
        """End all that is under way, and what comes after it. No turn is lost then."""
        while self.under_way or self._of_rests():
            await self.end(*self.under_way)
            await self.rest()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        assert (self.turns._busy, self.turns._lines, self.turns._resting) == ({}, {}, set())


LEAVES = {"hangs up": Played.hang_up, "is cancelled": Played.cancel}
leaves = pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)


def played(work: Callable[[Played], Any]) -> None:
    async def whole() -> None:
        world = Played()
        await work(world)
        await world.end_all()

    asyncio.run(whole())


async def full(world: Played) -> None:
    """All turns are taken by the first of tenant a."""
    assert UNDER_WAY == 4
    await world.ask("a1", "a2", "a3", "a4")
    assert world.under_way == ["a1", "a2", "a3", "a4"]


def test_a_few_lists_are_made_at_once() -> None:
    async def work(world: Played) -> None:
        await full(world)
        await world.ask("a5", "b1")
        assert world.under_way == ["a1", "a2", "a3", "a4"]

    played(work)


def test_who_floods_is_before_nobody_for_long() -> None:
    """Whoever asked last, and however long ago: each tenant has one list at a time."""

    async def work(world: Played) -> None:
        await full(world)
        await world.ask("a5", "a6", "a7", "a8", "b1", "b2", "c1")
        await world.end("a1", "a2", "a3")
        assert world.under_way == ["a4", "b1", "c1"]
        await world.end("a4")
        await world.rest()
        assert world.under_way == ["b1", "c1", "a5"]

    played(work)


def test_tenants_that_wait_have_their_turns_in_a_circle() -> None:
    async def work(world: Played) -> None:
        await world.ask("a1", "b1", "c1", "d1", "e1", "e2", "f1", "g1")
        await world.end("a1", "e1")
        assert world.under_way == ["b1", "c1", "d1", "f1"]
        await world.rest()
        await world.end("b1")
        assert world.under_way == ["c1", "d1", "f1", "g1"], "e stands behind g"

    played(work)


def test_a_tenant_beside_others_rests_after_a_list() -> None:
    """For as long as the list took, a second at most; nobody waits for it."""

    async def work(world: Played) -> None:
        await world.ask("b1")
        await world.end("b1")
        assert world.rests() == [], "it was alone"
        await world.ask("a1", "a2")
        assert world.under_way == ["a1"]
        world.now += 0.25
        await world.end("a1")
        assert (world.under_way, world.rests()) == ([], [0.25])
        await world.ask("a3", "b2")
        assert world.under_way == ["b2"], "a rests"
        await world.rest()
        assert world.under_way == ["b2", "a2"]
        world.now += 5
        await world.end("a2")
        assert world.rests() == [LONGEST_REST]

    played(work)


def test_a_tenant_is_alone_some_time_after_others_asked() -> None:
    """As long as a page that asks every three seconds counts as there."""

    async def work(world: Played) -> None:
        await world.ask("b1")
        await world.end("b1")
        world.now = BESIDE
        await world.ask("a1", "a2", "a3")
        assert world.under_way == ["a1"]
        world.now += 0.1
        await world.end("a1")
        assert (world.under_way, world.rests()) == (["a2", "a3"], [])
        await world.ask("a4", "a5", "a6")
        assert world.under_way == ["a2", "a3", "a4", "a5"]
        assert list(world.turns._last_requests) == ["a"], "others are forgotten"

    played(work)


@leaves
def test_who_leaves_the_line_holds_up_nobody(leave: Callable[[Played, str], None]) -> None:
    async def work(world: Played) -> None:
        await full(world)
        await world.ask("a5", "a6", "b1")
        leave(world, "a5")
        leave(world, "b1")
        await world.settle()
        assert {name: len(line) for name, line in world.turns._lines.items()} == {"a": 1}
        for name in ("a5", "b1"):
            assert isinstance(await world.error(name), ClientDisconnect | asyncio.CancelledError)
        await world.end("a1", "a2", "a3", "a4")
        await world.rest()
        assert world.under_way == ["a6"]

    played(work)


@leaves
@pytest.mark.parametrize("given_before", [True, False])
def test_a_turn_is_not_lost_on_who_leaves_meanwhile(
    leave: Callable[[Played, str], None], given_before: bool
) -> None:
    async def work(world: Played) -> None:
        await full(world)
        await world.ask("a5", "a6")
        steps = [lambda: leave(world, "a5"), world._done["a1"].set]
        for step in reversed(steps) if given_before else steps:
            step()
        await world.settle()
        assert world.under_way == ["a2", "a3", "a4", "a6"]
        assert await world.error("a5") is not None

    played(work)


@pytest.mark.parametrize("error", [ValueError(), SystemError(), asyncio.CancelledError()])
def test_what_fails_gives_its_turn_back(error: BaseException) -> None:
    async def work(world: Played) -> None:
        await full(world)
        await world.ask("b1")
        world.failures["a1"] = error
        await world.end("a1")
        assert world.under_way == ["a2", "a3", "a4", "b1"]

    played(work)


def test_what_hangs_gives_its_turn_on_once() -> None:
    async def work(world: Played) -> None:
        await full(world)
        await world.ask("b1", "c1")
        assert {timer.seconds for timer in world.timers} == {LONGEST_TURN}
        world.timers[0].fire()
        await world.settle()
        assert world.under_way == ["a1", "a2", "a3", "a4", "b1"]
        await world.end("a1")
        assert world.under_way == ["a2", "a3", "a4", "b1"], "it had given it on"

    played(work)


def test_a_line_is_bounded_for_each_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_turns, "REFUSAL", 0)

    async def work(world: Played) -> None:
        await full(world)
        waiting = [f"a{number}" for number in range(5, 5 + WAITING)]
        await world.ask(*waiting, "a", "b1")
        refused = await world.error("a")
        assert isinstance(refused, HttpProblem)
        assert (refused.status, refused.headers) == (429, {"Retry-After": "5"})
        world.hang_up(waiting[0])
        await world.settle()
        await world.ask("a")
        assert not world._tasks["a"].done(), "one has left"
        assert len(world.turns._lines["b"]) == 1

    played(work)
