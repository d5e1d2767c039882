"""A ledger that somebody upgrades under a running node, which knows the former tables alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from tests.integration.test_daemon import Paths
from tests.integration.test_ledger_open import run_sql
from tests.support.inline_pool import Inline
from tests.support.ledger_builds import orders, spec
from tests.support.postgres import Server
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import HEARTBEAT, Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger, connections, upgrade
from vmrunner.lib import process
from vmrunner.model import BuildState, Limits, Reason, Result
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.reaper.reaper import Reaper
from vmrunner.runtime import engine_host
from vmrunner.services import doctor, nodes
from vmrunner.session import End

KILL_WINDOW = 60.0  # seconds in which what is past its deadline dies


class Session:
    """A build that has succeeded as soon as somebody asks."""

    def run(self) -> End:
        return End(
            result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, message="", lost=False
        )

    def stop(self, reason: Reason) -> None:
        pass


def set_version(url: str, version: str) -> None:
    run_sql(url, f"UPDATE alembic_version SET version_num = '{version}'")


def parts(ledger: Ledger, path: Path) -> tuple[Clock, Cloud, list[Callable[[], None]], Engine]:
    """An engine over a cloud that a clock moves, and what its builds do once they are run."""
    clock = Clock()
    cloud, sessions = Cloud(clock), list[Callable[[], None]]()
    engine = Engine(
        ledger,
        {"local": FakeProvider("local", cloud)},
        lambda job, reporter: Session(),
        EngineLimits(limits=Limits(max_instances=1)),
        process=process.current(),
        kind="serve",
        paths=Paths(path, path, path / "wake"),
        orders=orders(ledger),
        clock=clock,
        monotonic=clock,
        pool=lambda name, size: Inline(),
        spawn=lambda name, work: sessions.append(work),
        listen=False,
    )
    return clock, cloud, sessions, engine


def test_a_node_under_other_tables_only_kills_past_the_deadline(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    clock, cloud, sessions, engine = parts(ledger, tmp_path)
    reaper = Reaper(engine.context, Membership(one_host=True), lambda: engine.watching)
    ledger.builds.submit(spec(), id="b-1", now=clock())
    ledger.builds.submit(replace(spec(), ttl=9000.0), id="b-2", now=clock())
    for _ in range(20):
        engine.tick()
        clock.advance(1)
    (row,) = ledger.instances.open()
    (session,) = sessions

    set_version(url, "9999")
    clock.advance(HEARTBEAT)
    session()
    for _ in range(3):
        with pytest.raises(LedgerError, match="version 9999 and this process knows"):
            engine.tick()
        with pytest.raises(LedgerError, match="version 9999"):
            ledger.builds.submit(spec(), id="b-3", now=clock())
        clock.advance(1)
    reaper.run()
    assert (cloud.counts["create"], len(alive(cloud))) == (1, 1)
    clock.advance(row.deadline - clock() + 1)
    assert "version 9999" in reaper.run().unread[0]
    assert not alive(cloud)

    set_version(url, upgrade.known()[-1])
    engine.tick()
    assert ledger.builds.get("b-1").result is Result.SUCCESS
    for _ in range(20):
        engine.tick()
        clock.advance(1)
    assert cloud.counts["create"] == 2
    assert ledger.builds.get("b-2").state is not BuildState.QUEUED
    engine.close()


def test_a_pass_beside_changes_of_tables_keeps_its_word(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that has all rows for as long as it likes: whoever reaps goes by tags."""
    held_up = connections.READING.replace("'3s'", "'20ms'")
    url = postgres.new()
    monkeypatch.setattr(connections, "READING", held_up)
    ledger = Ledger.open(url, data_dir=tmp_path / "data")
    clock, cloud, _, engine = parts(ledger, tmp_path)
    reaper = Reaper(engine.context, Membership(one_host=True), lambda: engine.watching)
    ledger.builds.submit(spec(), id="b-1", now=clock())
    for _ in range(20):
        engine.tick()
        clock.advance(1)
    (row,) = ledger.instances.open()
    waits = list[object]()
    event.listen(ledger._database._engine, "handle_error", waits.append)
    with psycopg.connect(url) as upgrading:
        upgrading.execute("LOCK TABLE builds, instances, events IN ACCESS EXCLUSIVE MODE")
        reaper.run()
        assert len(alive(cloud)) == 1
        clock.advance(row.deadline - clock() + 1)
        waits.clear()
        assert "lock timeout" in reaper.run().unread[0]
        assert not alive(cloud)
    assert 3.0 * len(waits) < KILL_WINDOW
    engine.close()
    ledger.close()


def alive(cloud: Cloud) -> list[Any]:
    return [thing for thing in cloud.things() if thing.alive]


def test_who_knows_other_tables_is_told_and_gone(ledger: Ledger, url: str) -> None:
    """Its process lives; its builds are taken over all the same."""
    for name in ("e-1", "e-2"):
        ledger.engines.join(name, process.current(), "serve", 10.0)
    run_sql(url, "UPDATE engines SET version = '0001' WHERE id = 'e-1'")
    membership = Membership(one_host=True)
    membership.update(ledger.engines.list(), 10.0)
    assert (membership.member_gone("e-1"), membership.member_gone("e-2")) == (True, False)
    assert [(node.id, node.outdated) for node in nodes.status(ledger, 10.0)] == [
        ("e-1", True), ("e-2", False),
    ]  # fmt: skip
    (finding,) = doctor.outdated(ledger)
    assert "e-1" in finding.message
    assert "it knows version 0001" in finding.message


def test_who_drives_nothing_hears_of_an_upgrade(
    ledger: Ledger, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener of a forge, or a program whose builds another process's engine drives."""
    unused: Any = None
    monkeypatch.setattr(engine_host, "served", lambda *_, **__: True)
    host = engine_host.EngineHost(
        None, ledger=lambda: ledger, providers=unused, background=unused, engine=unused,
        wake=tmp_path / "wake", upload=unused,
    )  # fmt: skip
    set_version(url, "9999")
    with pytest.raises(LedgerError, match="version 9999 and this process knows"):
        host.ensure("local")
    with pytest.raises(LedgerError, match="version 9999"):
        ledger.builds.submit(spec(), id="b-3", now=1.0)
