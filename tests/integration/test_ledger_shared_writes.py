"""Builds that are submitted at once: one commit for all, and each its own fate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledger_builds import spec
from tests.support.scripted_app import wait_until
from tests.support.stored import plain_ledger
from vmrunner.errors import Conflict, LedgerError, QuotaUsedUp
from vmrunner.ledger import Ledger

MANY = 20


class Together:
    """A ledger in which submits wait until all of them may go on."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = ledger
        self.database: Any = ledger._database
        self.together: Any = ledger.builds._together
        self.commits = 0
        self.fails: BaseException | None = None
        write = self.database.write

        def counted(work: Callable[..., Any], **options: Any) -> Any:
            self.commits += 1
            if self.fails is not None:
                error, self.fails = self.fails, None
                raise error
            return write(work, **options)

        monkeypatch.setattr(self.database, "write", counted)

    def submit(self, *options: dict[str, Any]) -> list[Future[Any]]:
        """Submit a build with each of these, all at once."""
        with ThreadPoolExecutor(MANY) as threads, self.together._turn:
            asked = [
                threads.submit(
                    self.ledger.builds.submit,
                    spec(idempotency_key=one.pop("key", None), name=one.pop("name", "")),
                    id=f"b-{n:02}",
                    now=100.0,
                    **one,
                )
                for n, one in enumerate(options)
            ]
            wait_until(lambda: len(self.together._waiting) == len(options))
        return asked


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    ledger = plain_ledger(tmp_path / "data")
    yield Together(ledger, monkeypatch)
    ledger.close()


def test_submits_at_once_share_one_commit(together: Together) -> None:
    asked = together.submit(*({} for _ in range(MANY)))
    assert {one.result()[0].id for one in asked} == {f"b-{n:02}" for n in range(MANY)}
    assert together.commits == 1
    assert len(together.ledger.builds.list()) == MANY


def test_one_that_fails_undoes_itself_alone(together: Together) -> None:
    options: list[dict[str, Any]] = [{} for _ in range(MANY)]
    options[3] = {"key": "k", "name": "first"}
    options[5] = {"key": "k", "name": "other"}
    for n in (7, 8, 9):
        options[n] = {"actor": "token:1", "most": 2}
    asked = together.submit(*options)
    errors = [type(error) for one in asked if (error := one.exception()) is not None]
    assert sorted(errors, key=str) == [Conflict, QuotaUsedUp]
    assert together.commits == 3, "those that failed tell why by themselves"
    assert len(together.ledger.builds.list()) == MANY - 2


@pytest.mark.parametrize("error", [LedgerError("the disk is full"), KeyboardInterrupt()])
def test_a_commit_that_fails_is_told_to_all(together: Together, error: BaseException) -> None:
    together.fails = error
    asked = together.submit(*({} for _ in range(MANY)))
    told = [one.exception() for one in asked]
    assert all(isinstance(one, LedgerError) or one is error for one in told)
    assert together.ledger.builds.list() == []
    assert [one.exception() for one in together.submit({}, {})] == [None, None]
