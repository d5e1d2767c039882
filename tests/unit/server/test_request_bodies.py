"""Large bodies: of one caller one at a time, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.server import request_bodies
from vmrunner.server.problems import HttpProblem
from vmrunner.server.request_bodies import LargeBodies

Work = Callable[[LargeBodies], Awaitable[None]]


def of(actor: str) -> Any:
    caller = SimpleNamespace(principal=SimpleNamespace(actor=actor))
    return SimpleNamespace(scope={"state": {"caller": caller}})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> LargeBodies:
    monkeypatch.setattr(request_bodies, "SHARE", 0.0)
    monkeypatch.setattr(request_bodies, "REFUSAL", 0.0)
    return LargeBodies()


def test_a_caller_has_one_large_body_at_a_time(large: LargeBodies) -> None:
    async def work() -> None:
        order, go = [], asyncio.Event()

        async def body(actor: str, name: str) -> None:
            async with large.turn(of(actor)):
                order.append(f"{name} begins")
                if name == "first":
                    await go.wait()
            order.append(f"{name} ends")

        async with asyncio.TaskGroup() as group:
            group.create_task(body("a", "first"))
            await asyncio.sleep(0)
            group.create_task(body("a", "second"))
            await group.create_task(body("b", "another's"))
            assert order == ["first begins", "another's begins", "another's ends"]
            go.set()
        assert order[3:] == ["first ends", "second begins", "second ends"]

    asyncio.run(work())


def test_who_has_too_many_is_told_so(large: LargeBodies) -> None:
    async def work() -> None:
        go = asyncio.Event()

        async def body(actor: str) -> None:
            async with large.turn(of(actor)):
                await go.wait()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(body("a")) for _ in range(request_bodies.WAITING)]
            await asyncio.sleep(0)
            with pytest.raises(HttpProblem) as refused:
                await body("a")
            assert refused.value.status == 429
            tasks[3].cancel()
            await asyncio.wait([tasks[3]])
            tasks.append(group.create_task(body("a")))
            await asyncio.sleep(0)
            go.set()

    asyncio.run(work())


def test_what_one_took_its_caller_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer does not wait; the next large body of the same caller does, for the loop's time
    in proportion."""
    later: list[float] = []

    async def work() -> None:
        large, loop = LargeBodies(), asyncio.get_running_loop()
        monkeypatch.setattr(
            loop, "call_later", lambda delay, *call: (later.append(delay), loop.call_soon(*call))
        )
        async with large.turn(of("a")) as body:
            body.cost = 3.0
        with contextlib.suppress(RuntimeError):
            async with large.turn(of("a")):
                raise RuntimeError("a body that is none")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert large._callers == {}

    asyncio.run(work())
    assert later == [request_bodies.SHARE * 3.0, request_bodies.SHARE * 0.05]
