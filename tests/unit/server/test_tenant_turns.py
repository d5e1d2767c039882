"""Turns of tenants: one floods, another asks now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from vmrunner.server.tenant_turns import LONGEST_TURN, RECENT, TenantTurns


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
    """Turns on a played clock. `under_way`: whose have begun and not ended."""

    def __init__(self) -> None:
        self.now, self.timers = 100.0, list[Later]()
        self.turns = TenantTurns(lambda: self.now, self._later)
        self.under_way = list[str]()
        self._tasks = dict[str, tuple[asyncio.Task[None], asyncio.Event]]()

    def _later(self, seconds: float, work: Callable[[], None]) -> Later:
        self.timers.append(Later(seconds, work))
        return self.timers[-1]

    async def ask(self, name: str) -> None:
        """Ask as the tenant that the name begins with."""
        done = asyncio.Event()

        async def work() -> None:
            async with self.turns.turn(name[0]):
                self.under_way.append(name)
                try:
                    await done.wait()
                finally:
                    self.under_way.remove(name)

        self._tasks[name] = asyncio.create_task(work()), done
        await self.settle()

    async def end(self, name: str, *, leaves: bool = False) -> None:
        task, done = self._tasks.pop(name)
        if leaves:
            task.cancel()
        done.set()
        await asyncio.wait([task])
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def rest(self) -> list[float]:
        """Let all that is to be later be now. Return its seconds."""
        due = [timer for timer in self.timers if not timer.over]
        for timer in due:
            timer.fire()
        await self.settle()
        return [timer.seconds for timer in due]


def played(work: Callable[[Played], Any]) -> None:
    asyncio.run(work(Played()))


def test_alone_a_tenant_has_as_many_as_it_likes() -> None:
    async def work(world: Played) -> None:
        for name in ("a1", "a2", "a3"):
            await world.ask(name)
        assert world.under_way == ["a1", "a2", "a3"]
        world.now += RECENT
        await world.ask("b1")
        world.now += RECENT
        await world.ask("a4")
        assert world.under_way == ["a1", "a2", "a3", "b1", "a4"], "it asked long ago"

    played(work)


def test_beside_another_it_has_one_and_rests() -> None:
    async def work(world: Played) -> None:
        await world.ask("b1")
        for name in ("a1", "a2", "a3"):
            await world.ask(name)
        assert world.under_way == ["b1", "a1"]
        world.now += 0.02
        await world.end("a1")
        assert world.under_way == ["b1"], "it rests"
        assert round(world.timers[-1].seconds, 6) == 0.02
        world.timers[-1].fire()
        await world.settle()
        assert world.under_way == ["b1", "a2"]

    played(work)


def test_a_flood_from_before_shrinks_to_one() -> None:
    async def work(world: Played) -> None:
        for number in range(1, 5):
            await world.ask(f"a{number}")
        await world.ask("b1")
        for number in range(5, 9):
            await world.ask(f"a{number}")
        assert world.under_way == ["a1", "a2", "a3", "a4", "b1"]
        for number in range(1, 5):
            await world.end(f"a{number}")
            for timer in world.timers:
                if timer.seconds < LONGEST_TURN:
                    timer.fire()
            await world.settle()
        assert world.under_way == ["b1", "a5"]

    played(work)


def test_once_the_other_is_silent_all_go_on() -> None:
    async def work(world: Played) -> None:
        await world.ask("b1")
        await world.end("b1")
        for name in ("a1", "a2", "a3"):
            await world.ask(name)
        assert world.under_way == ["a1"]
        world.now += RECENT
        await world.end("a1")
        assert world.under_way == ["a2", "a3"]

    played(work)


def test_who_leaves_holds_up_nobody() -> None:
    async def work(world: Played) -> None:
        await world.ask("b1")
        for name in ("a1", "a2", "a3"):
            await world.ask(name)
        await world.end("a2", leaves=True)
        await world.end("a1", leaves=True)
        await world.rest()
        assert world.under_way == ["b1", "a3"]
        await world.end("a3")
        await world.end("b1")
        await world.rest()
        assert not world.turns._lines

    played(work)


def test_a_turn_is_not_lost_on_who_leaves_meanwhile() -> None:
    async def work(world: Played, *, given_before: bool) -> None:
        await world.ask("b1")
        for name in ("a1", "a2", "a3"):
            await world.ask(name)
        task, _ = world._tasks.pop("a2")
        steps = [task.cancel, lambda: [timer.fire() for timer in world.timers]]
        for step in reversed(steps) if given_before else steps:
            step()
        await world.settle()
        assert world.under_way == ["b1", "a1", "a3"], given_before

    for given_before in (True, False):
        asyncio.run(work(Played(), given_before=given_before))


def test_what_hangs_holds_up_others_for_a_moment() -> None:
    async def work(world: Played) -> None:
        await world.ask("b1")
        await world.ask("a1")
        await world.ask("a2")
        assert world.under_way == ["b1", "a1"]
        assert await world.rest() == [LONGEST_TURN, LONGEST_TURN]
        assert world.under_way == ["b1", "a1", "a2"]
        await world.end("a1")
        await world.end("a2")
        await world.end("b1")
        await world.rest()
        assert not world.turns._lines

    played(work)
