from __future__ import annotations

import asyncio
import threading

from vmrunner.server.news_stream import OWN, NewsPage, SharedPages


def test_a_page_is_made_once_for_all_followers() -> None:
    made: list[int] = []
    go = threading.Event()

    def make() -> NewsPage[int]:
        go.wait()
        made.append(1)
        return NewsPage(b"x" * 10, 1)

    async def follow(pages: SharedPages) -> bytes:
        with pages.following("b"):
            found = await pages.page("b", 0, make)
            assert found is not None
            assert await pages.page("b", 0, make) is found, "kept"
            return found.data

    async def main() -> None:
        pages = SharedPages()
        followers = [asyncio.create_task(follow(pages)) for _ in range(500)]
        await asyncio.sleep(0)
        followers.pop().cancel()
        go.set()
        assert await asyncio.gather(*followers) == [b"x" * 10] * 499

    asyncio.run(main())
    assert made == [1]


def test_a_former_look_is_no_answer_to_who_knows_more() -> None:
    """Whoever knows that the build has ended takes none for the end of its log."""
    written: list[bytes] = []
    looks, go = threading.Event(), threading.Event()

    def make() -> NewsPage[int] | None:
        rows = list(written)
        looks.set()
        go.wait()
        return NewsPage(rows[0], 1) if rows else None

    async def main() -> None:
        pages = SharedPages()
        early = asyncio.create_task(pages.page("b", 0, make))
        await asyncio.to_thread(looks.wait)
        written.append(b"the last line")
        late = [asyncio.create_task(pages.page("b", 0, make)) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        assert await early is None
        assert await asyncio.gather(*late) == [NewsPage(b"the last line", 1)] * 3

    asyncio.run(main())


def test_nothing_is_kept_that_nobody_follows_or_is_too_much() -> None:
    made: list[int] = []

    def page(place: int) -> NewsPage[int]:
        made.append(place)
        return NewsPage(b"x" * 40, place + 1)

    async def main() -> None:
        pages = SharedPages(most=2 * (OWN + 40) + 39)
        with pages.following("b"):
            for place in (0, 1, 2, 1, 0):
                await pages.page("b", place, lambda at=place: page(at))  # type: ignore[misc]
        with pages.following("b"):
            await pages.page("b", 0, lambda: page(0))

    asyncio.run(main())
    assert made == [0, 1, 2, 0, 0]


def test_a_page_that_cannot_be_made_is_each_followers_error() -> None:
    def broken() -> NewsPage[int]:
        raise OSError("away")

    async def main() -> list[object]:
        pages = SharedPages()
        return await asyncio.gather(
            *(pages.page("b", 0, broken) for _ in range(3)), return_exceptions=True
        )

    assert [str(error) for error in asyncio.run(main())] == ["away"] * 3
