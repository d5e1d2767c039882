"""How often a database that does not answer is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmrunner.config.paths import Paths
from vmrunner.config.settings import Settings
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger
from vmrunner.runtime.ledger_opener import SILENCE_KEPT, LedgerOpener


class Database:
    """One that fails after so many seconds, and a clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.opens = seconds, 100.0, 0

    def open(self, *_: Any, **__: Any) -> Ledger:
        self.opens += 1
        self.now += self.seconds
        raise LedgerError("the ledger's database failed: away")


@pytest.mark.parametrize(("seconds", "opens"), [(10.0, 1), (0.1, 3)])
def test_a_silent_database_is_asked_once_in_a_while(
    seconds: float, opens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(seconds)
    monkeypatch.setattr(Ledger, "open", database.open)
    opener = LedgerOpener(Settings(), Paths(data=tmp_path, cache=tmp_path), lambda: database.now)
    for _ in range(3):
        with pytest.raises(LedgerError, match="away"):
            opener.open()
    assert database.opens == opens
    database.now += SILENCE_KEPT
    with pytest.raises(LedgerError, match="away"):
        opener.open()
    assert database.opens == opens + 1
