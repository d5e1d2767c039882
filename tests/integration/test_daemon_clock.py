"""A daemon whose host's wall clock is set while it serves, and one whose ledger says nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.test_daemon import Shop, shop, until
from vmrunner.engine.membership import Membership
from vmrunner.ledger.database import Database
from vmrunner.model import Process
from vmrunner.providers.fake import SCOPE, Clock, Cloud
from vmrunner.runtime import daemon
from vmrunner.runtime.bounded_task import BoundedTask
from vmrunner.runtime.daemon import Daemon
from vmrunner.runtime.timers import Timers

__all__ = ["shop"]

START = 1_900_000_000.0
HOUR = 3600.0
Hole = Callable[[], contextlib.AbstractContextManager[None]]


class Steady(Clock):
    """The cloud's clock, which nobody sets."""

    def __call__(self) -> float:
        return START + time.monotonic()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes tenths of a second."""
    for name, seconds in (("PASS", 0.3), ("CHECK", 0.1), ("SWEEP", 0.8), ("LEDGER_PATIENCE", 0.5)):
        monkeypatch.setattr(daemon, name, seconds)
    for name in ("UPLOAD", "NOTIFY", "WATCH", "PREPARE"):
        monkeypatch.setattr(daemon, name, 0.2)


@pytest.fixture
def steady(shop: Shop) -> Shop:
    shop.cloud = Cloud(Steady())
    return shop


@contextlib.contextmanager
def serving(served: Daemon) -> Iterator[Daemon]:
    thread = threading.Thread(target=served.run, kwargs={"signals": False})
    thread.start()
    try:
        yield served
    finally:
        served.stop()
        thread.join(30)
        assert not thread.is_alive()


def late(shop: Shop, seconds: float, instance: str = "vm-1") -> Any:
    """A VM of ours that no row knows, whose deadline is so far away."""
    return shop.cloud.plant(
        SCOPE,
        {
            "vmrunner:installation": shop.ledger.installation,
            "vmrunner:role": "build",
            "vmrunner:instance": instance,
            "vmrunner:expires-at": str(int(shop.cloud.clock() + seconds)),
        },
    )


@pytest.mark.parametrize("step", [-HOUR, HOUR, -24 * HOUR, 300 * 24 * HOUR])
def test_a_clock_that_is_set_loses_no_pass(
    steady: Shop, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever recurs goes on at its pace, and ends what is past its deadline."""
    wrong, ran = [0.0], dict.fromkeys(("upload", "watch", "prepare", "tell", "pass", "sweep"), 0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wrong[0])

    def counts(name: str) -> Callable[..., None]:
        def work(*_: object) -> None:
            ran[name] += 1

        return work

    served = Daemon(
        steady.engine(clock=time.time),
        steady.ledger,
        upload=counts("upload"),
        watch=counts("watch"),
        prepare=counts("prepare"),
        webhooks={"chat": counts("tell")},
    )
    inner = served._reaping.run

    def run(*, sweep: bool, **options: Any) -> Any:
        ran["sweep" if sweep else "pass"] += 1
        return inner(sweep=sweep, **options)

    monkeypatch.setattr(served._reaping, "run", run)
    with serving(served):
        until(lambda: all(ran.values()), "all of it once")
        wrong[0] = step
        before = ran.copy()
        machine = late(steady, -1.0)
        until(lambda: all(ran[name] >= before[name] + 3 for name in ran), "all of it again")
        until(lambda: not machine.alive, "the end of what is past its deadline")


@pytest.fixture
def hole(monkeypatch: pytest.MonkeyPatch) -> Hole:
    """While it lasts the database says nothing, no error either."""
    silent, over = threading.Event(), threading.Event()

    def hangs(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Database, *args: Any, **options: Any) -> Any:
            if silent.is_set():
                over.wait(60)
            return method(self, *args, **options)

        return call

    for name in ("read", "write", "look_up", "check"):
        monkeypatch.setattr(Database, name, hangs(getattr(Database, name)))

    @contextlib.contextmanager
    def lasts() -> Iterator[None]:
        silent.set()
        try:
            yield
        finally:
            silent.clear()
            over.set()

    return lasts


def test_what_is_known_dies_while_the_ledger_is_silent(
    steady: Shop, hole: Hole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it waits for comes back: neither who reaps, nor a row."""
    monkeypatch.setattr(daemon, "LEDGER_PATIENCE", 60.0)
    late_vm = late(steady, 3.0)
    with serving(Daemon(steady.engine(), steady.ledger)) as served:
        until(lambda: served._reaping._pending_at("fake")._kills, "a sweep that shows it")
        with hole():
            until(lambda: not late_vm.alive, "its end", 25)


def test_a_silent_ledger_keeps_no_sweep_waiting(steady: Shop, hole: Hole) -> None:
    """What no sweep showed before is found, as when the ledger is out of reach; also by a process
    that never heard who reaps."""
    unknown = late(steady, -1.0)
    served = Daemon(steady.engine(), steady.ledger)
    with contextlib.ExitStack() as stack, hole():
        stack.enter_context(serving(served))
        until(lambda: not unknown.alive, "its end", 25)


def test_the_reaper_goes_on_where_no_thread_starts(
    steady: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Daemon(steady.engine(), steady.ledger)) as served:
        until(lambda: served._swept and served._passes.finished, "a pass")

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            machine = late(steady, -1.0)
            until(lambda: not machine.alive, "its end")
            passed = served._passes.finished
            until(lambda: served._passes.finished != passed, "another pass")


def test_the_daemons_own_looks_find_a_dead_engine(
    steady: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks more often than it passes, whoever reaps."""
    monkeypatch.setattr(daemon, "PASS", 60.0)
    elsewhere = Process(machine="other", boot="b", pid_namespace="n", pid=1, started=1)
    steady.ledger.engines.join("e-dead", elsewhere, "serve", 1.0)
    served = Daemon(steady.engine(), steady.ledger)
    membership = Membership(one_host=False, alive=lambda _p, one_host: None, lease=0.5)
    monkeypatch.setattr(served, "_membership", membership)
    monkeypatch.setattr(served._turns, "_membership", membership)
    with serving(served):
        until(lambda: membership.process_lives(elsewhere) is False, "that it is found gone", 15)


def test_it_sweeps_though_no_cron_line_comes(steady: Shop) -> None:
    served = Daemon(steady.engine(), steady.ledger, cron="0 0 29 2 *")
    with serving(served):
        for n in (1, 2, 3):
            machine = late(steady, -1.0, f"vm-{n}")
            until(lambda machine=machine: not machine.alive, f"sweep {n}")
            swept = dict(served._swept)
            until(lambda swept=swept: served._swept != swept, "the next")


def test_a_pass_that_goes_on_is_no_finished_one(
    steady: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches the reaper must hear that it is silent."""
    go = threading.Event()
    engine = steady.engine()
    provider = engine.context.providers["fake"]
    monkeypatch.setattr(type(provider), "sweep", lambda _self: go.wait(60) and ())
    with serving(Daemon(engine, steady.ledger)) as served:
        until(lambda: served._swept, "the beginning of a sweep")
        until(lambda: served._sweeps.finished, "its round", 15)
        assert "sweep" not in steady.ledger.engines.heartbeats()
        go.set()


def test_all_that_recurs_is_called_by_a_timer(
    steady: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes once an hour or by night too."""
    ran: set[str] = set()
    served = Daemon(
        steady.engine(),
        steady.ledger,
        tidy=lambda: ran.add("tidy"),
        upload=lambda _until: ran.add("upload"),
        prepare=lambda: ran.add("prepare"),
        webhooks={"chat": lambda: ran.add("tell")},
        watch=lambda: ran.add("watch"),
        prices=lambda: ran.add("prices"),
    )
    served._engine.idle = True
    timed: list[Callable[[], object]] = []
    monkeypatch.setattr(served, "_timers", Timers(lambda: 0.0))
    monkeypatch.setattr(served._timers, "start", lambda: None)
    monkeypatch.setattr(
        served._timers, "every", lambda _name, _seconds, work, **_: timed.append(work)
    )
    monkeypatch.setattr(served._cron, "look", lambda: ran.add("cron"))
    for name in ("passes", "sweeps", "overdue"):
        task = BoundedTask(name, lambda name=name: ran.add(name))
        monkeypatch.setattr(served, f"_{name}", task)
    served._begin()
    try:
        for work in [*timed, *(job.func for job in served._cron._scheduler.get_jobs())]:
            work()
        every = {"tidy", "upload", "prepare", "tell", "watch", "prices", "cron"}
        until(lambda: ran == every | {"passes", "sweeps", "overdue"}, f"all of it, not {ran}")
    finally:
        served._cron.stop()
        for task in served._tasks():
            task.stop()
        served._engine.close()
