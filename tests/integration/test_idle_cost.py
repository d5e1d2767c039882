"""What an idle tick reads does not depend on how much is open."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tests.integration.test_daemon import Paths
from tests.support.inline_pool import Inline
from tests.support.ledger_builds import OFFER, orders, running
from tests.support.postgres import Server
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.work_selection import LOG_HANDOVER
from vmrunner.ledger import Ledger, tables
from vmrunner.lib import process
from vmrunner.model import Address, Reason, Start
from vmrunner.providers import LookPace
from vmrunner.providers.fake import Clock, Cloud, FakeProvider

FEW, MANY, IDLE = 100, 10_000, 60.0
LOOKS = 2000
TICK_CALLS = 40  # of a tick itself: 26, and as many comprehensions as Python 3.11 makes calls of
BULK = ("engine/poller.py", "engine/reconciler.py", "engine/launcher.py", "core/lifecycle.py")
LIFE = 250.0  # less than between two whole reads
_READ = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"


class Silent:
    """A session of which nothing is heard."""

    def stop(self, reason: Reason) -> None:
        pass


def node(ledger: Ledger, root: Path, clock: Clock) -> Engine:
    """An engine whose sessions' threads are not played."""
    return Engine(
        ledger,
        {"local": FakeProvider("local", Cloud(clock), scopes=(OFFER.scope,))},
        lambda job, reporter: Silent(),  # type: ignore[arg-type,return-value]
        EngineLimits(),
        process=process.current(),
        kind="serve",
        paths=Paths(root, root, root / "wake"),
        orders=orders(ledger),
        clock=clock,
        monotonic=clock,
        pool=lambda name, size: Inline(),
        spawn=lambda name, work: None,
        listen=False,
    )


def copy(ledger: Ledger, count: int, owner: str, deadline: float) -> None:
    """So many builds that run at an engine, like the one that is there."""
    new = {
        ("builds", "id"): "'b-' || (100000 + i)",
        ("builds", "instance"): "'vm-' || (100000 + i)",
        ("instances", "id"): "'vm-' || (100000 + i)",
        ("instances", "build"): "'b-' || (100000 + i)",
        ("instances", "deadline"): str(deadline),
    }

    def work(connection: Connection) -> None:
        for table in (tables.BUILDS, tables.INSTANCES):
            names = list(table.column_names)
            values = [
                f"'{owner}'" if name == "owner" else new.get((table.name, name), f'"{name}"')
                for name in names
            ]
            listed = ", ".join(f'"{name}"' for name in names)
            connection.exec_driver_sql(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
                f" INSERT INTO {table.name} ({listed}) SELECT {', '.join(values)}"
                f" FROM {table.name}, n WHERE id IN ('b-1', 'vm-1')"
            )

    ledger._database.write(work)


def work_of(ledger: Ledger) -> Callable[[], int]:
    """A question for what the database has done so far: rows read by PostgreSQL, steps of SQLite's
    machine."""
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    def watch(connection: Any, *_: object) -> None:
        connection.set_progress_handler(step, 10)

    def rows(connection: Connection) -> int:
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        return 0

    def total(connection: Connection) -> int:
        return int(connection.exec_driver_sql(_READ).scalar_one())

    if ledger._database.sqlite:
        event.listen(ledger._database._engine, "checkout", watch)
        return lambda: steps[0]
    return lambda: ledger._database.read(rows) or ledger._database.read(total)


def idle(ledger: Ledger, root: Path, count: int) -> tuple[int, Engine, Clock]:
    """What an idle minute costs with so many builds."""
    clock = Clock()
    engine = node(ledger, root, clock)
    running(ledger)
    ledger.instances.addresses([("vm-1", 1, Address("127.0.0.1", 22))])
    copy(ledger, count, engine.id, clock() + LIFE)
    done, until = work_of(ledger), clock() + IDLE / 2

    def run() -> None:
        while clock() < until:
            clock.advance(engine.tick())

    run()
    assert len(engine._sessions.builds()) >= count
    before, until = done(), clock() + IDLE
    run()
    return done() - before, engine, clock


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_idle_node_reads_no_more_the_more_is_open(
    postgres: Server, tmp_path: Path, database: str
) -> None:
    costs = {}
    for count in (FEW, MANY):
        where = tmp_path / str(count)
        here = f"sqlite:///{where}/ledger.db" if database == "sqlite" else postgres.new()
        ledger = Ledger.open(here, data_dir=where)
        costs[count], engine, clock = idle(ledger, where, count)
        if count == FEW:  # and yet each is told when its time is over
            clock.advance(LIFE - 1.5 * IDLE - LOG_HANDOVER)
            engine.tick()
            stopped = {session.stopped for session in engine._sessions.all()}
            assert stopped == {Reason.DEADLINE}
        engine.close()
        ledger.close()
    assert costs[MANY] < 1.1 * costs[FEW] + 50, costs


def test_what_just_goes_on_is_looked_at_in_bulk(tmp_path: Path) -> None:
    """A look that shows nothing new makes no more calls here than one to ask what is pending, and
    one for what it means; beside these, a tick makes some that no number of VMs adds to."""
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    _, engine, clock = idle(ledger, tmp_path, LOOKS)
    row = ledger.instances.get("vm-1")
    cloud: Cloud = engine.context.providers["local"].cloud  # type: ignore[attr-defined]
    machine = cloud.plant(row.scope, {})
    assert row.ref is not None
    cloud.machines[row.ref], machine.ref = machine, row.ref  # all of them are called so
    looked, calls, ticks = cProfile.Profile(), 0, 0
    for measured in (False, True):
        until = clock() + 2 * LookPace().steady
        while clock() < until:
            if measured:
                looked.enable()
            pause = engine.tick()
            looked.disable()
            ticks += measured
            clock.advance(pause)
    for function in looked.getstats():
        name = function.code if isinstance(function.code, str) else function.code.co_filename
        calls += function.callcount if name.endswith(BULK) else 0
    assert ledger.instances.get("vm-1").start is Start.COLD  # it was seen
    least = 2 * 2 * LOOKS
    assert least <= calls < least + TICK_CALLS * ticks
    assert TICK_CALLS * ticks < 2 * LOOKS  # or one call more for each VM would pass
    engine.close()
    ledger.close()
