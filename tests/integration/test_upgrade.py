"""Upgrades of a PostgreSQL ledger that nodes use meanwhile: nobody waits for them, and one that was
cut short goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, event

from tests.support.postgres import Server
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, upgrade
from vmrunner.ledger.connections import connect, single_transaction
from vmrunner.ledger.migrations import steps
from vmrunner.ledger.models import METADATA
from vmrunner.ledger.urls import parse_url

#: What takes as long as there are rows.
LONG = (
    "UPDATE BUILDS",
    "UPDATE INSTANCES",
    "CREATE INDEX",
    "CREATE UNIQUE INDEX",
    "SELECT ID FROM",
)
FILLER = {
    "text": "''", "character varying": "'x'", "boolean": "false", "bytea": "''::bytea",
    "double precision": "0", "integer": "0", "bigint": "0",
}  # fmt: skip


def insert(connection: psycopg.Connection[Any], table: str, **values: str) -> None:
    """Insert a row of a version that no code of ours writes any more: what `values` (SQL) do not
    name is nothing."""
    columns = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s "
        "AND is_nullable = 'NO' AND column_default IS NULL",
        (table,),
    ).fetchall()
    row = {name: FILLER[kind] for name, kind in columns} | values
    names = ", ".join(f'"{name}"' for name in row)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join(row.values())})".encode())


@pytest.fixture
def former(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger of version 0006, with builds and VMs for more than one batch."""
    url = postgres.empty()
    config = Config()
    config.set_main_option("script_location", str(upgrade.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with single_transaction(parse_url(url)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
    with psycopg.connect(url) as rows:
        for number in range(5):
            state = "'finished'" if number else "'running'"
            insert(rows, "builds", id=f"'b-{number}'", name=f"'n{number}'", state=state)
            scope = "qemu" if number % 2 else "ec2"
            offer = f"""'{{"scope":["{scope}","x"]}}'"""
            insert(rows, "instances", id=f"'vm-{number}'", build=f"'b-{number}'", offer=offer)
        insert(rows, "chunks", build="'b-4'")
    monkeypatch.setattr(steps, "ROWS_IN_BATCH", 2)
    return url


def facts(url: str) -> list[list[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        return [
            connection.execute(question).fetchall()
            for question in (
                "SELECT id FROM builds WHERE NOT cost_final",
                "SELECT id FROM builds WHERE log_due = 0",
                "SELECT id FROM instances WHERE usd_hour = 0 AND price_source = 'own' ORDER BY id",
                "SELECT DISTINCT revision FROM builds UNION SELECT revision FROM instances",
                "SELECT indexrelid FROM pg_index WHERE NOT indisvalid",
            )
        ]


UPGRADED = [[("b-0",)], [("b-4",)], [("vm-1",), ("vm-3",)], [(0,)], []]


@contextmanager
def watched(look: Callable[[str], None], moment: str) -> Iterator[None]:
    """Call `look` with each statement that takes long, before or after it."""

    def seen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.upper().startswith(LONG):
            look(statement)

    event.listen(Engine, moment, seen)
    try:
        yield
    finally:
        event.remove(Engine, moment, seen)


@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute"])
def test_others_read_and_write_during_long_steps(former: str, moment: str) -> None:
    looks = list[str]()
    with psycopg.connect(former, autocommit=True) as other:
        other.execute("SET lock_timeout = '1s'")

        def look(statement: str) -> None:
            looks.append(statement)
            for table in ("builds", "instances"):
                other.execute(f"UPDATE {table} SET state = state".encode())

        with watched(look, moment):
            Ledger.upgrade(former)
    assert any("UPDATE" in statement for statement in looks)
    assert any("CREATE INDEX" in statement for statement in looks)
    assert facts(former) == UPGRADED


def test_an_upgrade_that_was_cut_short_goes_on(former: str) -> None:
    """At each of its long steps, and after them."""
    done = set[str]()

    class CutShort(Exception):
        pass

    def cut(statement: str) -> None:
        if statement not in done:
            done.add(statement)
            raise CutShort

    for moment in ("before_cursor_execute", "after_cursor_execute"):
        done.clear()
        with watched(cut, moment):
            while True:
                try:
                    Ledger.upgrade(former)
                except CutShort:
                    continue
                break
    assert facts(former) == UPGRADED
    engine = connect(parse_url(former))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_an_index_that_was_half_made_is_made_anew(former: str) -> None:
    with psycopg.connect(former) as connection:
        connection.execute("ALTER TABLE builds ADD COLUMN revision bigint DEFAULT 0")
        connection.execute("CREATE INDEX ix_builds_revision ON builds (revision)")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'ix_builds_revision'::regclass"
        )
    Ledger.upgrade(former)
    assert facts(former) == UPGRADED


def test_a_new_row_has_no_filled_value(former: str) -> None:
    Ledger.upgrade(former)
    with psycopg.connect(former) as connection:
        insert(connection, "builds", id="'b-new'", name="'new'", state="'running'")
        found = connection.execute("SELECT revision, cost_final FROM builds WHERE id = 'b-new'")
        assert found.fetchone() == (None, False)


def test_a_change_waits_shortly_and_comes_back(
    former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that takes long: others would stand behind whoever waits for it."""
    pauses = list[float]()
    with psycopg.connect(former) as reader:
        reader.execute("SELECT count(*) FROM builds")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            reader.rollback()

        monkeypatch.setattr(upgrade.time, "sleep", pause)
        Ledger.upgrade(former)
    assert pauses == [upgrade.LOCK_PAUSE]
    assert facts(former) == UPGRADED


def test_two_upgrades_do_not_run_at_once(former: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade.time, "sleep", lambda _: None)
    with (
        upgrade._only_upgrade(parse_url(former)),
        pytest.raises(LedgerError, match="another upgrade"),
    ):
        Ledger.upgrade(former)
    Ledger.upgrade(former)
    assert facts(former) == UPGRADED


def test_who_waits_for_an_upgrade_holds_no_snapshot(former: str) -> None:
    """Indexes are made once all older snapshots are gone: it would wait for its own guard."""
    with (
        upgrade._only_upgrade(parse_url(former)),
        psycopg.connect(former) as other,
    ):
        held = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL"
        )
        assert held.fetchone() == (0,)
