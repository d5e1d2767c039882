from __future__ import annotations

import asyncio
import gc

import pytest

from vmrunner.errors import LedgerError
from vmrunner.server.change_watcher import ChangeWatcher, Progress


def test_a_ledger_that_is_away_is_told_who_waits() -> None:
    """The log has nothing of it: who waits says what becomes of it."""
    rows = [(1, 1, "running")]
    errors: list[object] = []

    def look(_: str) -> Progress:
        if not rows:
            raise LedgerError("away")
        return rows.pop()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        watcher = ChangeWatcher(look)
        since = await watcher.progress("b")
        with pytest.raises(LedgerError):
            await watcher.changed("b", since, 60)

    asyncio.run(main())
    gc.collect()
    assert errors == []
