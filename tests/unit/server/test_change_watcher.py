from __future__ import annotations

import asyncio
import gc

import pytest

from vmrunner.errors import LedgerError
from vmrunner.server.change_watcher import ChangeWatcher, Progress


def test_a_ledger_that_is_away_is_told_who_waits() -> None:
    """The log has nothing of it: who waits says what becomes of it."""
    there = [(1, 1, "running")]
    told: list[object] = []

    def look(_: str) -> Progress:
        if not there:
            raise LedgerError("away")
        return there.pop()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        watcher = ChangeWatcher(look)
        since = await watcher.progress("b")
        with pytest.raises(LedgerError):
            await watcher.changed("b", since, 60)

    asyncio.run(main())
    gc.collect()
    assert told == []
