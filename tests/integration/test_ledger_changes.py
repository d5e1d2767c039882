"""What is open is read by what changed: nothing is missed, and what goes on costs nothing."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection

from tests.support.ledger_builds import launch, running, spec, submitted, template_launch
from tests.support.postgres import Server
from vmrunner.core.scheduling import Capacity
from vmrunner.ledger import Ledger, builds
from vmrunner.ledger.open_rows import WHOLE
from vmrunner.model import Death, Reason, Result


def names(reader: Any, now: float = 0.0) -> tuple[set[str], set[str]]:
    found = reader.read(now)
    assert set(found.rows) == {row.id for row in found.rows.values()}
    return set(found.rows), set(found.builds)


def test_a_reader_follows_each_change(ledger: Ledger) -> None:
    reader = ledger.open_rows()
    assert names(reader) == (set(), set())
    submitted(ledger)
    assert reader.read(0.0).changed == {"b-1"}
    assert names(reader) == (set(), set())  # it waits
    ledger.instances.start([launch(ledger, "b-1", "vm-1")], until=1.0)
    assert names(reader) == ({"vm-1"}, {"b-1"})
    assert reader.read(0.0).changed == frozenset()
    running(ledger, "b-2", "vm-2")
    found = reader.read(0.0)
    assert found.changed == {"b-2", "vm-2"}
    assert found.builds["b-2"] == ledger.builds.get("b-2")
    assert found.rows["vm-2"] == ledger.instances.get("vm-2")
    ledger.builds.request_cancel("b-2", Reason.USER, 5.0)
    assert reader.read(0.0).builds["b-2"].cancel is Reason.USER
    submitted(ledger, "b-3")
    ledger.builds.request_cancel("b-3", Reason.USER, 5.0)
    ledger.builds.finish(
        "b-1", epoch=1, result=Result.ERROR, reason=Reason.INTERNAL, now=5.0, death=Death.DONE
    )
    assert names(reader) == ({"vm-1", "vm-2"}, {"b-2", "b-3"})
    ledger.instances.close("vm-1", epoch=2, death=Death.DONE, now=6.0)
    assert names(reader) == ({"vm-2"}, {"b-2", "b-3"})
    fresh, kept = ledger.open_rows().read(0.0), reader.read(0.0)
    assert (kept.rows, kept.builds) == (fresh.rows, fresh.builds)


def test_a_backup_beside_makes_no_change_dear(postgres: Server, data_dir: Path) -> None:
    """PostgreSQL keeps index entries for who still sees them: a mark of all changes grew with each,
    and each change went through them all."""
    url = postgres.new()
    ledger = Ledger.open(url, data_dir=data_dir)
    question = "SELECT heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'builds'"
    flush = "SELECT pg_stat_force_next_flush()"
    with psycopg.connect(url) as backup, psycopg.connect(url, autocommit=True) as statistics:
        backup.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        backup.execute("SELECT count(*) FROM builds")
        pages = [0]
        for part in range(3):
            for n in range(100):
                submitted(ledger, f"b-{part}-{n}")
            ledger._database.read(lambda c: c.exec_driver_sql(flush).scalar())
            row = statistics.execute(question).fetchone()
            assert row is not None
            pages.append(int(row[0]))
    ledger.close()
    _, second, third = (after - before for before, after in itertools.pairwise(pages))
    assert third < 1.25 * second


def test_engines_mind_a_templates_vm_once_it_dies(ledger: Ledger) -> None:
    of_engine, of_reaper = ledger.open_rows(images=False), ledger.open_rows()
    assert names(of_engine)[0] == set()
    (_, row), *_ = ledger.instances.start([template_launch(ledger, "vm-1")], until=1.0)
    for when in (0.0, 400.0):  # by the change, and when all is read
        assert names(of_engine, when)[0] == set()
        assert names(of_reaper, when)[0] == {"vm-1"}
    dying = ledger.instances.mark_deleting(
        "vm-1", seen_epoch=row.epoch, death=Death.ABANDONED, now=5.0
    )
    assert dying is not None
    for when in (400.0, 800.0):
        assert names(of_engine, when)[0] == {"vm-1"}
    ledger.instances.close("vm-1", epoch=dying.epoch, death=Death.DONE, now=6.0)
    assert names(of_engine, 800.0)[0] == names(of_reaper, 800.0)[0] == set()


def test_a_templates_vm_takes_no_builds_place(ledger: Ledger) -> None:
    submitted(ledger)
    ledger.instances.start([template_launch(ledger, "vm-1")], until=1.0)
    won = ledger.instances.start(
        [launch(ledger, "b-1", "vm-2")], until=1.0, rooms=Capacity(overall=1)
    )
    assert [row.id for _, row in won] == ["vm-2"]


def test_rows_stay_in_order_however_they_come(ledger: Ledger) -> None:
    running(ledger, "b-1", "vm-1")
    reader = ledger.open_rows()
    reader.read(0.0)
    for n in (4, 3):  # the newest last
        running(ledger, f"b-{n}", f"vm-{n}")
    assert list(reader.read(0.0).rows) == ["vm-1", "vm-3", "vm-4"]
    running(ledger, "b-2", "vm-2")
    assert list(reader.read(0.0).builds) == ["b-1", "b-2", "b-3", "b-4"]


def test_a_whole_read_decodes_what_differs(ledger: Ledger) -> None:
    for n in (1, 2, 3, 4):
        running(ledger, f"b-{n}", f"vm-{n}")
    reader = ledger.open_rows()
    first = reader.read(0.0)
    execute(ledger, "UPDATE builds SET epoch = 7 WHERE id = 'b-2'")
    execute(ledger, "DELETE FROM instances WHERE id = 'vm-3'")
    execute(ledger, "UPDATE instances SET state = 'odd' WHERE id = 'vm-4'")
    found = reader.read(WHOLE)
    assert found.changed is None
    assert found.builds["b-2"].epoch == 7
    assert found.rows["vm-1"] is first.rows["vm-1"]
    assert (list(found.rows), found.unread) == (["vm-1", "vm-2"], {"vm-4"})
    assert list(first.rows) == ["vm-1", "vm-2", "vm-3", "vm-4"]
    execute(ledger, "UPDATE instances SET state = 'busy' WHERE id = 'vm-4'")
    found = reader.read(2 * WHOLE)
    assert (list(found.rows), found.unread) == (["vm-1", "vm-2", "vm-4"], set())
    execute(ledger, "UPDATE instances SET state = 'odd' WHERE id = 'vm-4'")
    reader.read(3 * WHOLE)
    execute(ledger, "DELETE FROM instances WHERE id = 'vm-4'")
    assert reader.read(4 * WHOLE).unread == set()


def test_a_log_and_a_lease_are_no_change(ledger: Ledger) -> None:
    running(ledger)
    ledger.builds.submit(spec(), id="b-2", now=10.0, lease_until=20.0)
    reader = ledger.open_rows()
    reader.read(0.0)
    ledger.logs.append("b-1", 1, 1, offset=1, data=b"x", now=105.0)
    ledger.submitter_leases.renew("b-2", 100.0)
    assert reader.read(0.0).changed == frozenset()
    ledger.builds.steps_started("b-1", epoch=1)
    assert reader.read(0.0).changed == {"b-1"}


def execute(ledger: Ledger, statement: str) -> None:
    """As somebody does who writes past all that counts changes."""

    def work(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    ledger._database.write(work)


def test_what_no_transaction_told_is_found_in_time(ledger: Ledger) -> None:
    running(ledger)
    reader = ledger.open_rows()
    reader.read(0.0)
    execute(ledger, "UPDATE builds SET cancel = 'user'")
    assert reader.read(WHOLE - 1).builds["b-1"].cancel is None
    assert reader.read(WHOLE).builds["b-1"].cancel is Reason.USER


def test_a_database_that_was_set_back_is_read_whole(ledger: Ledger) -> None:
    running(ledger)
    reader = ledger.open_rows()
    reader.read(0.0)
    execute(ledger, "DELETE FROM instances")
    execute(ledger, "UPDATE revisions SET last = last - 1")
    assert names(reader)[0] == set()


def test_writers_that_commit_in_the_opposite_order_lose_no_change(
    postgres: Server, tmp_path: Path
) -> None:
    """Whoever wrote first and commits last has the higher number."""
    ledger = Ledger.open(postgres.new(), data_dir=tmp_path)
    for n in (1, 2):
        running(ledger, f"b-{n}", f"vm-{n}")
    reader = ledger.open_rows()
    reader.read(0.0)
    wrote, go = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> None:
        builds._CANCEL(connection, id="b-1", reason="user", now=1.0).first()
        wrote.set()
        assert go.wait(60)

    first = threading.Thread(target=ledger._database.write, args=(slowly,))
    first.start()
    assert wrote.wait(60)
    ledger.builds.request_cancel("b-2", Reason.USER, 1.0)
    assert reader.read(0.0).changed == {"b-2"}
    go.set()
    first.join()
    found = reader.read(0.0)
    assert found.changed == {"b-1"}
    assert {build.cancel for build in found.builds.values()} == {Reason.USER}
    ledger.close()
