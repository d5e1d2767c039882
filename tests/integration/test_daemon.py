"""`serve` with real threads and a real clock, on a fake cloud: it works, reaps, drains and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from tests.support.ledger_builds import orders
from tests.support.limited_host import Paths, Wall
from vmrunner.engine import engine as engine_module
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger import Ledger
from vmrunner.lib import ids, process, wakeup
from vmrunner.model import (
    BuildRecord,
    BuildSpec,
    BuildState,
    Death,
    InstanceState,
    Reason,
    Result,
    Step,
)
from vmrunner.providers.fake import SCOPE, Cloud, FakeProvider
from vmrunner.reaper.once import reap
from vmrunner.runtime import daemon
from vmrunner.runtime.daemon import Daemon, DaemonUpdate
from vmrunner.session import End


class Session:
    """Runs until it is told to go on, or to stop."""

    go = threading.Event()

    def __init__(self, job: Any, reporter: Any) -> None:
        self.reporter = reporter
        self.reason: Reason | None = None

    def stop(self, reason: Reason) -> None:
        self.reason = reason
        type(self).go.set()

    def run(self) -> End:
        for state in (BuildState.CONNECTING, BuildState.PREPARING, BuildState.RUNNING):
            self.reporter.state(state)
        self.go.wait(60)
        if self.reason:
            return End(
                result=Result.CANCELLED, reason=self.reason, exit_code=None, message="", lost=False
            )
        self.reporter.state(BuildState.COLLECTING)
        return End(
            result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, message="", lost=False
        )


@dataclass
class Shop:
    root: Path
    ledger: Ledger
    cloud: Cloud

    def engine(self, **options: Any) -> Engine:
        return Engine(
            self.ledger,
            {"fake": FakeProvider("fake", self.cloud)},
            Session,
            EngineLimits(),
            process=process.current(),
            kind="serve",
            paths=Paths(self.root, self.root, self.root / "wake"),
            orders=orders(self.ledger),
            **options,
        )

    def submit(self, **options: Any) -> BuildRecord:
        spec = BuildSpec(
            steps=(Step(run="x"),), provider="fake", container="c", timeout=60, ttl=1000
        )
        submitter = options.pop("submitter", None)
        spec = replace(spec, **options)
        build, _ = self.ledger.builds.submit(
            spec, id=ids.build_id(), now=time.time(), submitter=submitter
        )
        return build


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    tmp_path.chmod(0o700)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", data_dir=tmp_path)
    Session.go = threading.Event()
    yield Shop(tmp_path, ledger, Cloud(Wall()))
    ledger.close()


@contextlib.contextmanager
def ticking(engine: Engine) -> Iterator[None]:
    """Let it run in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        engine.wake()
        thread.join(30)
        engine.close()


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        threading.Event().wait(0.02)


def test_serve_until_idle_does_the_work_and_goes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "IDLE_EXIT", 0.2)
    build = shop.submit()
    Session.go.set()
    Daemon(shop.engine(), shop.ledger, until_idle=True).run(signals=False)
    done = shop.ledger.builds.get(build.id)
    assert done.result is Result.SUCCESS
    assert [row.state for row in shop.ledger.instances.list()] == [InstanceState.GONE]
    assert not [m for m in shop.cloud.things() if m.alive]
    assert shop.ledger.engines.list() == []


def test_a_background_engine_outlives_a_removed_ledger_by_its_vms(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could do nothing more for anybody, and would try to for ever."""
    monkeypatch.setattr(daemon, "IDLE_EXIT", 0.2)
    clock = {"ahead": 0.0}
    build = shop.submit()
    engine = shop.engine(clock=lambda: time.time() + clock["ahead"])
    served = Daemon(engine, shop.ledger, until_idle=True)
    thread = threading.Thread(target=served.run, kwargs={"signals": False})
    thread.start()
    try:
        until(lambda: shop.ledger.builds.get(build.id).state is BuildState.RUNNING, "it to run")
        for file in shop.root.glob("ledger.db*"):
            file.unlink()
        (shop.root / "witness").unlink()
        thread.join(3 * engine_module.BUSY_TICK)
        assert thread.is_alive(), "its VM lives"
        clock["ahead"] = 2000
        thread.join(30)
        assert not thread.is_alive()
    finally:
        served.stop()
        Session.go.set()
        thread.join(30)


def test_a_file_that_cannot_be_looked_at_is_not_removed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, **_: Any) -> os.stat_result:
        raise PermissionError(13, "no right to look", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    assert not shop.ledger.is_removed()
    monkeypatch.undo()
    assert not shop.ledger.is_removed()
    (shop.root / "ledger.db").unlink()
    assert shop.ledger.is_removed()


def test_a_ledger_that_is_away_is_logged_ever_more_rarely(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = {"now": 0.0}
    engine = shop.engine(monotonic=lambda: clock["now"])

    def tick() -> float:
        raise LedgerError("it is away")

    def wait(seconds: float) -> bool:
        clock["now"] += seconds
        return False

    monkeypatch.setattr(engine, "tick", tick)
    monkeypatch.setattr(engine._listener, "wait", wait)
    engine.run(lambda: clock["now"] > 3600)
    lines = [record for record in caplog.records if "out of reach" in record.message]
    assert 10 < len(lines) < 150
    engine.close()


def test_an_idle_engine_tells_rarely_that_a_ledger_is_away(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time that it wanted to end, it began to tell anew."""
    clock = {"now": 0.0}
    engine = shop.engine(monotonic=lambda: clock["now"])
    engine.tick()

    def away(*_: object) -> float:
        raise LedgerError("it is away")

    monkeypatch.setattr(engine, "tick", away)
    monkeypatch.setattr(type(shop.ledger.engines), "leave", away)
    for _ in range(360):
        clock["now"] += daemon.IDLE_EXIT
        ends = iter((False, True, True))
        engine.run(partial(next, ends))
        assert not engine.retire()
    lines = [record for record in caplog.records if "out of reach" in record.message]
    assert 10 < len(lines) < 150
    monkeypatch.undo()
    engine.close()


def test_templates_are_made_while_no_build_wants_the_processors(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "PREPARE", 0.05)
    prepared: list[int] = []
    Session.go.clear()
    build = shop.submit()
    served = Daemon(shop.engine(), shop.ledger, prepare=lambda: prepared.append(1))
    thread = threading.Thread(target=served.run, kwargs={"signals": False})
    thread.start()
    try:
        until(lambda: shop.ledger.builds.get(build.id).state is BuildState.RUNNING, "it to run")
        prepared.clear()
        assert not threading.Event().wait(0.3)
        assert not prepared
        Session.go.set()
        until(lambda: prepared, "the time for a template")
    finally:
        served.stop()
        thread.join(30)


def test_a_new_configuration_has_its_own_webhooks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "NOTIFY", 0.05)
    sent: list[str] = []
    engine = shop.engine()

    def renew() -> DaemonUpdate:
        webhooks = {"new": lambda: sent.append("new")}
        return DaemonUpdate(
            providers=engine.context.providers,
            limits=engine.context.limits,
            cron="*/5 * * * *",
            webhooks=webhooks,
        )

    def fails() -> None:
        sent.append("former")
        raise OSError("it fails, and others go on")

    served = Daemon(
        engine,
        shop.ledger,
        webhooks={"former": fails},
        watch=lambda: sent.append("watch"),
        renew=renew,
    )
    thread = threading.Thread(target=served.run, kwargs={"signals": False})
    thread.start()
    try:
        until(lambda: sent.count("former") > 1, "the former one")
        assert "watch" not in sent
        served.reload()
        until(lambda: "new" in sent and "watch" in sent, "the new one")
    finally:
        served.stop()
        thread.join(30)


def test_sigterm_hands_over_and_the_next_engine_goes_on(shop: Shop) -> None:
    build = shop.submit()
    served = Daemon(shop.engine(), shop.ledger)

    def kill() -> None:
        until(lambda: shop.ledger.builds.get(build.id).state is BuildState.RUNNING, "running")
        os.kill(os.getpid(), signal.SIGTERM)

    old = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=kill)
    thread.start()
    started = time.monotonic()
    try:
        served.run()
    finally:
        signal.signal(signal.SIGTERM, old[0])
        signal.signal(signal.SIGINT, old[1])
    thread.join()
    assert time.monotonic() - started < 30
    handed_over = shop.ledger.builds.get(build.id)
    assert handed_over.state is BuildState.RUNNING
    assert shop.ledger.engines.list() == []

    Session.go.set()
    with ticking(shop.engine()):
        until(lambda: shop.ledger.builds.get(build.id).finished, "the end")
    done = shop.ledger.builds.get(build.id)
    assert done.result is Result.SUCCESS
    assert done.epoch > handed_over.epoch
    assert shop.cloud.counts["create"] == 1


def test_a_signal_in_the_middle_of_another_hangs_nothing(shop: Shop) -> None:
    """Python runs a handler between any two steps of another one, in the same thread."""
    served = Daemon(shop.engine(), shop.ledger)
    steps: list[str] = []

    def interrupt(_frame: FrameType, event: str, _arg: Any) -> Any:
        steps.append(event)
        served.stop()
        served.reload()
        return interrupt

    def signals() -> None:
        sys.settrace(interrupt)
        served.reload()
        served.stop()

    thread = threading.Thread(target=signals, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert len(steps) > 10
    served.run(signals=False)
    assert shop.ledger.engines.list() == []


def test_a_submit_wakes_an_engine_of_another_process_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between ticks there would be minutes here: without the hint it would never be in time."""
    monkeypatch.setattr(engine_module, "IDLE_TICK", 300.0)
    monkeypatch.setattr(engine_module, "BUSY_TICK", 300.0)
    engine = shop.engine()
    with ticking(engine):
        until(lambda: engine.idle, "idle")
        build = shop.submit()
        wakeup.poke(shop.root / "wake")
        until(lambda: shop.ledger.builds.get(build.id).state is BuildState.RUNNING, "running")
        shop.ledger.builds.request_cancel(build.id, Reason.USER, time.time())
        wakeup.poke(shop.root / "wake")
        until(lambda: shop.ledger.builds.get(build.id).finished, "the end")


def test_reap_ends_what_a_dead_submitter_left_and_nothing_else(shop: Shop) -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert child.stdin
    theirs = process.of(child.pid)
    dying, kept = shop.submit(submitter=theirs), shop.submit(submitter=process.current())
    first = shop.engine()

    def running() -> bool:
        first.tick()
        states = {shop.ledger.builds.get(b.id).state for b in (dying, kept)}
        return states == {BuildState.RUNNING}

    until(running, "both to run")
    first.draining = True
    queued = shop.submit(submitter=theirs)
    first.close()
    child.stdin.close()
    child.wait()
    other = shop.engine()
    parts = other.context.ledger, other.context.providers, other.context.limits
    (killed,) = reap(*parts, other.context.paths, dry_run=True).lines
    assert (killed.build, killed.reason, killed.outcome) == (dying.id, Death.ABANDONED, "")
    assert not shop.ledger.builds.get(dying.id).finished

    report = reap(*parts, other.context.paths)
    (line,) = report.lines
    assert (line.build, line.reason, line.outcome) == (dying.id, Death.ABANDONED, "accepted")
    assert not report.unread
    for build in (dying, queued):
        ended = shop.ledger.builds.get(build.id)
        assert (ended.result, ended.reason) == (Result.CANCELLED, Reason.OWNER_GONE)
    assert not shop.ledger.builds.get(kept.id).finished
    (remaining,) = shop.ledger.instances.open()
    assert remaining.build == kept.id
    assert [m.order.build for m in shop.cloud.things() if m.alive and m.order] == [kept.id]
    other.close()


def test_a_ledger_that_others_write_to_delays_no_kill(shop: Shop) -> None:
    """Who reaps is asked for in vain, and soon, however many writers are in front of the reaper."""
    tags = {
        "vmrunner:installation": shop.ledger.installation,
        "vmrunner:role": "build",
        "vmrunner:instance": "vm-1",
        "vmrunner:expires-at": str(int(time.time()) - 1),
    }
    late = shop.cloud.plant(SCOPE, tags)
    engine = shop.engine(listen=False)
    served = Daemon(engine, shop.ledger)
    threads = [threading.Thread(target=shop.ledger.pause, args=(False, 1.0)) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: (served._pass(), served._sweep())))
    database = sqlite3.connect(shop.root / "ledger.db")
    try:
        database.execute("BEGIN IMMEDIATE")
        for thread in threads:
            thread.start()
        until(lambda: not late.alive, "a kill without the lease", 15)
    finally:
        database.close()
        for thread in threads:
            thread.join(60)
        engine.close()
    assert not shop.ledger.engines.holders()


def test_a_ledger_that_stays_silent_is_told_ever_more_rarely(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vmrunner.serve")
    now = [1000.0]
    monkeypatch.setattr(daemon, "time", SimpleNamespace(monotonic=lambda: now[0]))
    served = Daemon(shop.engine(), shop.ledger)
    monkeypatch.setattr(served, "_reap", lambda names, *, sweep: None)
    taking = served._turns.take

    def silent(_providers: object) -> None:
        raise LedgerError("the ledger's database has not answered for 10 s")

    def messages() -> list[str]:
        return [
            record.getMessage() for record in caplog.records if "who reaps" in record.getMessage()
        ]

    def passes(count: int) -> None:
        for _ in range(count):
            served._pass()
            now[0] += daemon.CHECK

    monkeypatch.setattr(served._turns, "take", silent)
    passes(720)  # an hour
    assert set(served._ours) == {"fake"}  # whatever is told, it reaps
    assert 10 < len(messages()) < 20
    monkeypatch.setattr(served._turns, "take", taking)
    passes(2)
    assert messages()[-1] == "who reaps can be told again"
    monkeypatch.setattr(served._turns, "take", silent)
    former = len(messages())
    passes(1)
    assert len(messages()) == former + 1  # a change is told at once


def test_a_cron_line_that_cannot_be_read_is_named(shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r"reaper.sweep: 'every day': not a cron line"):
        Daemon(shop.engine(listen=False), shop.ledger, cron="every day")
