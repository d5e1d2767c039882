"""Connections to a PostgreSQL ledger: how many, for whom, and what becomes of those that are
lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event

from tests.support.postgres import Server
from tests.support.scripted_app import wait_until
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, connections, postgres_copy
from vmrunner.ledger.urls import parse_url

PATIENCE = {  # of libpq; https://www.postgresql.org/docs/current/libpq-connect.html, November 2026
    "tcp_user_timeout": "15000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


@pytest.fixture
def direct(postgres: Server, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger without a proxy before its server."""
    with_name = postgres.new() + "&application_name=ours"
    ledger = Ledger.open(with_name, data_dir=tmp_path / "data")
    yield ledger
    ledger.close()


def parameters(connection: Connection) -> dict[str, str]:
    return connections.driver(connection).info.get_parameters()  # type: ignore[no-any-return]


def test_a_silent_server_is_given_up_in_seconds(direct: Ledger) -> None:
    assert direct._database.read(parameters).items() >= PATIENCE.items()
    with connections.single_transaction(direct._database.url) as connection:
        assert parameters(connection).items() >= PATIENCE.items()


def test_the_users_own_patience_wins(postgres: Server) -> None:
    url = parse_url(postgres.empty() + "&tcp_user_timeout=3000&keepalives_idle=2")
    with connections.single_transaction(url) as connection:
        found = parameters(connection)
    assert (found["tcp_user_timeout"], found["keepalives_idle"]) == ("3000", "2")
    assert found["keepalives_count"] == "3"


def test_programs_that_copy_it_have_the_same_patience(
    monkeypatch: pytest.MonkeyPatch, direct: Ledger, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spy = tmp_path / "pg_dump"
    spy.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/arguments\n')
    spy.chmod(0o755)
    postgres_copy.save(direct._database.url, tmp_path / "dump", lambda _: None)
    given = (tmp_path / "arguments").read_text()
    assert all(f"{name}={value}" in given for name, value in PATIENCE.items())


def test_writers_do_not_stand_behind_readers(direct: Ledger) -> None:
    """More readers than connections, which take their time; the engine and the reaper write."""
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def read(_: Connection) -> None:
        inside.release()
        go_on.wait(60)

    readers = [threading.Thread(target=direct._database.read, args=(read,)) for _ in range(40)]
    for reader in readers:
        reader.start()
    for _ in range(connections.READERS):
        assert inside.acquire(timeout=30)
    try:
        assert direct.engines.acquire("reaper", "e-1", 30.0)
        assert not inside.acquire(blocking=False), "all connections that read are taken"
    finally:
        go_on.set()
        for reader in readers:
            reader.join()


def test_who_finds_no_connection_is_told(direct: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTION_WAIT", 0.01)
    entered = threading.Barrier(connections.READERS + 1)
    go_on = threading.Event()

    def read(_: Connection) -> None:
        entered.wait(30)
        go_on.wait(60)

    readers = [
        threading.Thread(target=direct._database.read, args=(read,))
        for _ in range(connections.READERS)
    ]
    for reader in readers:
        reader.start()
    entered.wait(30)
    try:
        with pytest.raises(LedgerError, match=r"no connection was free for 0\.01 s"):
            direct.builds.list()
    finally:
        go_on.set()
        for reader in readers:
            reader.join()


def read_together(ledger: Ledger, threads: int) -> None:
    """Read in so many threads at one moment, each on a connection of its own."""
    together = threading.Barrier(threads)
    readers = [
        threading.Thread(target=ledger._database.read, args=(lambda _: together.wait(30),))
        for _ in range(threads)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def end_all(server: Server) -> int:
    """Let the server end our connections. Return how many those were."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ours'"
        ).fetchall()
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'"
        wait_until(lambda: connection.execute(ours).fetchone() == (0,))
    return len(rows)


def test_one_lost_connection_empties_the_pool(direct: Ledger, postgres: Server) -> None:
    """Where one is lost so are the others: no other thread waits for a dead one."""
    read_together(direct, 4)
    lost = list[BaseException | None]()
    event.listen(direct._database._engine, "invalidate", lambda _c, _r, error: lost.append(error))
    assert end_all(postgres) >= 4
    assert direct.builds.list() == []
    read_together(direct, 4)
    assert sum(isinstance(error, psycopg.Error) for error in lost) == 1, "one thread met one"


def test_a_loss_amid_a_transaction_empties_the_pool(direct: Ledger, postgres: Server) -> None:
    read_together(direct, 4)
    lost = list[BaseException | None]()
    event.listen(direct._database._engine, "invalidate", lambda _c, _r, error: lost.append(error))

    def lose(connection: Connection) -> None:
        end_all(postgres)
        connections.driver(connection).execute("SELECT 1")

    with pytest.raises(LedgerError):
        direct._database.read(lose)
    read_together(direct, 4)
    assert not any(isinstance(error, psycopg.Error) for error in lost[1:])


def test_a_read_waits_seconds_for_who_changes_tables(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that takes long: whoever reaps goes by tags meanwhile, and keeps G."""
    monkeypatch.setattr(connections, "READING", connections.READING.replace("'3s'", "'20ms'"))
    url = postgres.new()
    ledger = Ledger.open(f"{url}&options=-cstatement_timeout%3D9000", data_dir=tmp_path)
    with psycopg.connect(url) as upgrading:
        upgrading.execute("LOCK TABLE instances IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LedgerError, match="lock timeout") as refused:
            ledger.instances.open()
    assert "its tables are being changed" in refused.value.hint
    assert ledger.instances.open() == []
    ledger.close()
