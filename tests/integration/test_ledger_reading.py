"""Reads that share a transaction: fewer round trips, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ledger_builds import submitted
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, connections
from vmrunner.ledger.sql import Connection


def broken(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT nothing FROM nowhere")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_what_is_read_together_begins_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(ledger, "b-1")
    begun: list[str] = []
    begin = connections.begin

    def noted(connection: Connection, text: str) -> str:
        begun.append(text)
        return begin(connection, text)

    monkeypatch.setattr(connections, "begin", noted)
    with ledger.reading():
        assert [build.id for build in ledger.builds.queued()] == ["b-1"]
        ledger.pools.all()
        assert len(begun) == 1
    ledger.pools.all()
    assert len(begun) == 2


def test_each_read_sees_what_is_committed_by_then(ledger: Ledger) -> None:
    submitted(ledger, "b-1")
    with ledger.reading(), ThreadPoolExecutor(1) as other:
        assert len(ledger.builds.queued()) == 1
        other.submit(submitted, ledger, "b-2").result()
        assert len(ledger.builds.queued()) == 2
        submitted(ledger, "b-3")  # its own writes have a transaction of their own
        assert len(ledger.builds.queued()) == 3
        assert len(other.submit(ledger.builds.queued).result()) == 3


def test_a_read_that_fails_spoils_no_later_one(ledger: Ledger) -> None:
    submitted(ledger, "b-1")
    with pytest.raises(LedgerError), ledger.reading():
        ledger._database.read(broken)
    with pytest.raises(ZeroDivisionError), ledger.reading():
        raise ZeroDivisionError
    assert len(ledger.builds.queued()) == 1
    with ledger.reading():
        assert len(ledger.builds.queued()) == 1
