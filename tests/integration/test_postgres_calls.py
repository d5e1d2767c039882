"""Statements to PostgreSQL by libpq's own calls: as psycopg's cursors, but for what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.postgres import Server
from vmrunner.errors import NotFound
from vmrunner.ledger import Ledger, postgres_calls

ASK = "SELECT 'server', 1"


@pytest.fixture
def client(postgres: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.new(), prepare_threshold=None) as connection:
        yield connection


def idle(client: psycopg.Connection[Any]) -> bool:
    return client.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_values_of_all_kinds_come_back(client: psycopg.Connection[Any]) -> None:
    text = (
        "SELECT %(s)s::VARCHAR, %(i)s::INTEGER, %(f)s::FLOAT, %(b)s::BOOLEAN, %(n)s::VARCHAR, "
        "%(d)s::BYTEA, %(s)s::VARCHAR, 7 %% 4, %(big)s::BIGINT"
    )
    values = {
        "s": "ä'; %s %(i)s $1 \\", "i": -1, "f": 0.1, "b": True, "n": None, "d": b"\0\xff",
        "big": 1 << 62, "spare": "is not sent",
    }  # fmt: skip
    (row,) = postgres_calls.run(client, text, values).fetchall()
    assert row == (
        values["s"], -1, 0.1, True, None, b"\0\xff", values["s"], 3, 1 << 62,
    )  # fmt: skip
    assert row == client.execute(text, values).fetchone()


def test_a_statement_is_of_the_clients_transaction(client: psycopg.Connection[Any]) -> None:
    """Also where it is the first: what is rolled back was not done."""
    new = postgres_calls.run(
        client, "UPDATE revisions SET last = last + %(n)s RETURNING last", {"n": 1}
    )
    assert (new.rowcount, new.fetchone(), new.fetchone()) == (1, (1,), None)
    client.rollback()
    assert postgres_calls.run(client, "SELECT last FROM revisions", {}).fetchall() == [(0,)]


def test_a_statement_that_fails_says_why(client: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        postgres_calls.run(client, "SELECT 1 FROM nowhere", {})
    client.rollback()
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        postgres_calls.look_up(client, ASK, "SELECT 1 FROM nowhere", {})
    with pytest.raises(psycopg.errors.UndefinedTable, match="no_server"):
        postgres_calls.look_up(client, "SELECT 1 FROM no_server", "SELECT 1", {})
    server, found = postgres_calls.look_up(client, ASK, "SELECT %(n)s::INTEGER", {"n": 2})
    assert (server.fetchone(), found.fetchone(), idle(client)) == (("server", 1), (2,), True)


def test_a_commit_after_a_last_statement_that_fails_commits_nothing(
    client: psycopg.Connection[Any],
) -> None:
    postgres_calls.run_script(client, "BEGIN; UPDATE revisions SET last = 9")
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres_calls.commit(client, "UPDATE nowhere SET last = 1")
    client.rollback()
    assert postgres_calls.run_script(client, "SELECT last FROM revisions").fetchone() == (0,)
    postgres_calls.commit(client)
    postgres_calls.commit(client)
    assert idle(client)


def test_no_answer_is_taken_for_the_next_one(
    client: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose two answers were not read to their end is not used any more."""

    def interrupted(_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        postgres_calls.look_up(client, ASK, "SELECT 1", {})
    assert client.closed


def test_no_look_up_believes_a_server_before_it_is_known(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(postgres.new(), data_dir=tmp_path)
    database, seen = ledger._database, list[int]()
    recognise = database._recognise

    def counted(server: str) -> None:
        seen.append(len(database._servers))
        recognise(server)

    monkeypatch.setattr(database, "_recognise", counted)
    database._servers.clear()
    with pytest.raises(NotFound):
        ledger.builds.get("b-none")
    with pytest.raises(NotFound):
        ledger.builds.get("b-none")
    assert seen == [0]
    ledger.close()
