from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from anyio import to_thread

from tests.support.scripted_app import wait_until
from vmrunner.model import Principal
from vmrunner.server import prefetch
from vmrunner.server.caller_slots import CallerSlots, CallerStream
from vmrunner.server.prefetch import ReadAhead

PIECES = [b"%d" % n * 400 for n in range(10)]


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AT_ONCE", 1000)


class Source:
    """Pieces, and how many of them were taken."""

    def __init__(self, *, broken: bool = False) -> None:
        self.taken = 0
        self._broken = broken

    def __iter__(self) -> Iterator[bytes]:
        for piece in PIECES:
            self.taken += 1
            yield piece
        if self._broken:
            raise OSError("away")


def opened(reading: ReadAhead, source: Source) -> AsyncGenerator[bytes]:
    return reading.pieces(iter(source))


async def taken(source: Source, pieces: int) -> bool:
    """Wait until so many are taken, and see that no more are."""
    await to_thread.run_sync(wait_until, lambda: source.taken >= pieces)
    for _ in range(9):
        await to_thread.run_sync(int)
    return source.taken == pieces


def test_bytes_come_in_order_and_a_part_ahead() -> None:
    async def main() -> None:
        source = Source()
        answer = opened(ReadAhead(), source)
        found = [await anext(answer)]
        assert found == [b"".join(PIECES[:2])]
        assert await taken(source, 2 * (1 + prefetch.AHEAD))
        found += [piece async for piece in answer]
        assert b"".join(found) == b"".join(PIECES)

    asyncio.run(main())


def test_only_so_many_answers_read_ahead_at_once() -> None:
    async def main() -> None:
        reading, sources = ReadAhead(2), [Source() for _ in range(4)]
        first, second, third = (opened(reading, source) for source in sources[:3])
        for answer in (first, second, third):
            await anext(answer)
        for source, pieces in zip(sources, [6, 6, 1, 0], strict=True):
            assert await taken(source, pieces)
        await first.aclose()
        _ = [piece async for piece in second]
        assert b"".join([piece async for piece in third]) == b"".join(PIECES[1:])
        answers = []
        for source in (Source(), sources[3]):
            answers.append(opened(reading, source))
            await anext(answers[-1])
            assert await taken(source, 6), "who has left, or has all, takes no place"
        for answer in answers:
            await answer.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("takes", [True, False])
def test_a_callers_slot_is_taken_while_its_answer_is_read(*, takes: bool) -> None:
    """Also once its reader left, or who comes and leaves has any number of threads."""
    reads, goes_on, happened = threading.Semaphore(0), threading.Event(), list[str]()

    def slow() -> Iterator[bytes]:
        yield b"x" * 1000
        reads.release()
        goes_on.wait(60)
        happened.append("read")

    class Slots(CallerSlots):
        def give_back(self, principal: Principal) -> None:
            happened.append("given back")
            super().give_back(principal)

    async def main() -> None:
        disconnected = asyncio.Event()

        async def receive() -> Any:
            await to_thread.run_sync(reads.acquire)
            disconnected.set()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and not takes:
                await asyncio.Event().wait()

        caller = Principal(actor="token:1", scopes=frozenset())
        answer = CallerStream(slow(), slots=Slots("streams", lambda: 1), principal=caller)
        served = asyncio.create_task(answer({"type": "http"}, receive, send))
        await disconnected.wait()
        for _ in range(9):  # it hears of that meanwhile
            await to_thread.run_sync(int)
        goes_on.set()
        await served
        assert happened == ["read", "given back"]

    asyncio.run(main())


def test_a_source_that_fails_cuts_the_answer_off() -> None:
    found = bytearray()

    async def take(answers: int) -> None:
        async for piece in opened(ReadAhead(answers), Source(broken=True)):
            found.extend(piece)

    for answers in (0, 1):
        found.clear()
        with pytest.raises(OSError, match="away"):
            asyncio.run(take(answers))
        assert found
        assert b"".join(PIECES).startswith(found)


def test_a_source_ends_with_its_answer() -> None:
    """It has a file open, or a connection to the store."""
    ended: list[int] = []

    def source() -> Iterator[bytes]:
        try:
            yield from PIECES
        finally:
            ended.append(1)

    async def leave(answers: int) -> None:
        read = source()
        answer = ReadAhead(answers).pieces(read)
        await anext(answer)
        await answer.aclose()
        ended.append(2)
        del read  # it was held until here

    for answers in (0, 1):
        asyncio.run(leave(answers))
    assert ended == [1, 2, 1, 2]


def test_a_large_piece_is_not_copied() -> None:
    async def main() -> None:
        pieces = [bytes(990), bytes(990)]
        answer = ReadAhead().pieces(iter(pieces))
        assert [id(piece) async for piece in answer] == [id(piece) for piece in pieces]

    asyncio.run(main())
