"""`vmrunner serve`: an engine, and a reaper on a timer. Only this package imports APScheduler.

APScheduler is used for when, never for what: its jobs lie in memory and only start a thread. So a
run that hangs is seen and replaced, where `max_instances` would silence the reaper for ever; no
job is missed for being late, and none is lost for being renamed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.ledger import Ledger
from vmrunner.model import Budget, PoolSpec
from vmrunner.providers import Provider
from vmrunner.reaper.once import record_pass
from vmrunner.reaper.pass_log import PassLog
from vmrunner.reaper.reaper import Reaper
from vmrunner.runtime.cron_trigger import CronLineTrigger

log = logging.getLogger("vmrunner.serve")

PASS: Final = 30.0  # seconds between two passes over the ledger
SWEEP: Final = 300.0  # … between two sweeps, whatever the cron line adds
CHECK: Final = 5.0  # … between two looks at who reaps: a dead reaper's heir must be within G
REAPER_LEASE: Final = 45.0  # of the one that reaps
DRAIN: Final = 30.0  # a stop that takes longer ends the process: what it held is taken over
BOUND: Final = 600.0  # a pass that takes longer is given up, and another is started
SILENCE: Final = 300.0  # without a finished pass, it is said loudly
IDLE_EXIT: Final = 10.0  # so long without work until `until_idle` ends
UPLOAD: Final = 5.0  # … between two looks for what builds left
NOTIFY: Final = 5.0  # … for what webhooks are to be told
WATCH: Final = 30.0  # … for what they are to be alarmed of
PRICES: Final = 3600.0  # between two looks for old prices
PREPARE: Final = 60.0  # between two looks for a template that is missing
PREPARE_BOUND: Final = 2400.0  # as BOUND: a template's VM and its clone may take 15 min each
_NAME: Final = "reaper"
_CRON_KEY: Final = "reaper.sweep"


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonUpdate:
    """The part of a new configuration that a running daemon takes over."""

    providers: Mapping[str, Provider]
    limits: EngineLimits
    cron: str
    pools: Mapping[str, PoolSpec] = field(default_factory=dict)
    webhooks: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    budgets: Sequence[Budget] = ()


class BoundedTask:
    """A task that runs in a thread of its own, once at a time, and not for ever."""

    def __init__(self, name: str, work: Callable[[], object], bound: float = BOUND) -> None:
        self._name = name
        self._work = work
        self._bound = bound
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self.finished: float | None = None  # when a run last came to its end, monotonic

    def __call__(self) -> None:
        """Start a run, unless one is under way that may still end."""
        with self._lock:
            now = time.monotonic()
            if self._thread is not None and self._thread.is_alive():
                if now - self._began < self._bound:
                    return
                log.error("%s hangs since %d s: starting another", self._name, now - self._began)
            self._began = now
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except LedgerError as error:
            log.warning("%s: %s", self._name, error)
        except Exception:
            log.exception("%s", self._name)
        else:
            self.finished = time.monotonic()


class Daemon:
    """An engine with a reaper. `run` blocks until it is stopped, or idle when that was asked."""

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        *,
        cron: str = "*/5 * * * *",
        until_idle: bool = False,
        tidy: Callable[[], object] = lambda: None,
        upload: Callable[[], object] = lambda: None,
        prepare: Callable[[], object] = lambda: None,
        webhooks: Mapping[str, Callable[[], object]] | None = None,
        watch: Callable[[], object] = lambda: None,
        prices: Callable[[], object] = lambda: None,
        renew: Callable[[], DaemonUpdate] | None = None,
    ) -> None:
        """`cron` says when to sweep beside every five minutes; `tidy` is what is done nightly,
        `upload` every few seconds, and what tells each of the `webhooks`, which wait for no
        other; `watch` looks twice a minute for what is to be told; `prepare` is called each minute
        in which no build wants the processors; `prices` asks the clouds for theirs where they are
        old; `renew` reads the configuration again. Raises ConfigError when `cron` cannot be
        read."""
        self._engine = engine
        self._ledger = ledger
        self._until_idle = until_idle
        self._prepare = prepare
        self._renew = renew
        self._renewing = threading.Event()
        self._stopped = threading.Event()
        self._watchdog: threading.Timer | None = None
        self._idle_since: float | None = None
        self._started = time.monotonic()
        self._complained = self._started
        self._mine = False  # is this the process that reaps?
        self._passed = self._swept = float("-inf")  # when this process last began one, monotonic
        # Its own view of who lives: the engine's is not made for two threads.
        self._membership = Membership(one_host=ledger.url.startswith("sqlite"))
        self._tell = PassLog(time.monotonic)
        self._reaping = Reaper(engine.context, self._membership, lambda: engine.watching)
        self._passes = BoundedTask("ledger-pass", self._pass)
        self._sweeps = BoundedTask("sweep", lambda: self._reap(sweep=True))
        self._nightly = BoundedTask("retention", tidy)
        self._uploads = BoundedTask("uploads", upload)
        self._prices = BoundedTask("prices", prices)
        self._preparations = BoundedTask("templates", self._prepare_when_idle, PREPARE_BOUND)
        self._watches = BoundedTask("alarms", watch)
        self._webhooks = _tasks(webhooks or {})
        self._scheduler = self._schedule(cron)

    def run(self, *, signals: bool = True) -> None:
        """Serve. With `signals`, SIGTERM and SIGINT stop it and SIGHUP lets it read its
        configuration again; only in the main thread."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
            signal.signal(signal.SIGHUP, lambda *_: self.reload())
        self._scheduler.start()
        self._passes()
        try:
            while not self._stopped.is_set():
                self._engine.run(self._over)
                if self._engine.refused is not None:
                    raise self._engine.refused
                if self._stopped.is_set() or self._engine.retire():
                    break
                self._idle_since = None  # work came while we left
        finally:
            self._scheduler.shutdown(wait=False)
            self._engine.close()
            try:
                self._ledger.engines.release(_NAME, self._engine.id)
            except LedgerError as error:
                log.warning("%s", error)
            if self._watchdog is not None:
                self._watchdog.cancel()

    def stop(self) -> None:
        """Hand over what runs, and let `run` return within seconds; from any thread or signal. A
        call that hangs keeps it no longer than `DRAIN`: the next engine takes over all the same."""
        self._engine.draining = True
        self._stopped.set()
        if self._watchdog is None:
            self._watchdog = threading.Timer(DRAIN, _give_up)
            self._watchdog.daemon = True
            self._watchdog.start()
        self._engine.wake()

    def reload(self) -> None:
        """Read the configuration again, soon; from any thread or signal."""
        self._renewing.set()
        self._engine.wake()

    # --- within ---

    def _over(self) -> bool:
        self._listen_for_silence()
        if self._stopped.is_set() or self._engine.refused is not None:
            return True
        if self._renewing.is_set():
            self._renewing.clear()
            self._take_configuration()
        now = time.monotonic()
        if not (self._until_idle and self._engine.idle):
            self._idle_since = None
            return False
        self._idle_since = self._idle_since if self._idle_since is not None else now
        return now - self._idle_since >= IDLE_EXIT

    def _take_configuration(self) -> None:
        """Take over a new configuration, in the engine's thread, between two ticks."""
        if self._renew is None:
            return
        try:
            new = self._renew()
        except VmrunnerError as error:
            log.warning("the configuration stays as it was: %s", error)
            return
        context = self._engine.context
        context.providers, context.limits, context.pools = new.providers, new.limits, new.pools
        self._webhooks = _tasks(new.webhooks)
        context.budgets = new.budgets
        self._watches()  # what is new is named at once
        trigger = CronLineTrigger(new.cron, _CRON_KEY)
        self._scheduler.add_job(self._sweeps, trigger, id="sweep", replace_existing=True)
        log.info("the configuration was read again; providers: %s", ", ".join(new.providers))

    def _listen_for_silence(self) -> None:
        """The engine's thread watches the reaper's: a dead reaper must not be a silent one."""
        now = time.monotonic()
        last = max(self._started, self._passes.finished or 0.0, self._complained)
        if now - last > SILENCE:
            self._complained = now
            log.critical("the reaper has not finished a pass for %d s", int(SILENCE))

    def _schedule(self, cron: str) -> Any:
        scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        scheduler.add_job(self._passes, IntervalTrigger(seconds=CHECK), id="ledger-pass")
        scheduler.add_job(self._sweep_anyway, IntervalTrigger(seconds=PASS), id="sweep-anyway")
        scheduler.add_job(self._sweeps, CronLineTrigger(cron, _CRON_KEY), id="sweep")
        scheduler.add_job(self._preparations, IntervalTrigger(seconds=PREPARE), id="templates")
        scheduler.add_job(self._uploads, IntervalTrigger(seconds=UPLOAD), id="uploads")
        scheduler.add_job(self._tell_webhooks, IntervalTrigger(seconds=NOTIFY), id="webhooks")
        scheduler.add_job(self._watches, IntervalTrigger(seconds=WATCH), id="alarms")
        scheduler.add_job(
            self._prices,
            IntervalTrigger(seconds=PRICES),
            id="prices",
            next_run_time=datetime.now(UTC),
        )
        scheduler.add_job(self._nightly, CronTrigger(hour=3, minute=7), id="retention")
        return scheduler

    def _pass(self) -> None:
        """A pass over the ledger when it is time for one; else see whether there is a reaper."""
        if not self._mine or time.monotonic() - self._passed >= PASS - CHECK / 2:
            self._reap(sweep=False)

    def _tell_webhooks(self) -> None:
        for task in self._webhooks:
            task()

    def _sweep_anyway(self) -> None:
        if time.monotonic() - self._swept >= SWEEP - PASS / 2:
            self._sweeps()

    def _reap(self, *, sweep: bool) -> None:
        """Reap once, if no other process reaps. Without a ledger to ask, everybody does: past the
        deadline a kill needs none, and two reapers are harmless."""
        before, self._mine = self._mine, self._takes_lease()
        if not self._mine:
            return
        self._passed = time.monotonic()
        if sweep:
            self._swept = self._passed
        elif not before:
            self._sweeps()  # what the former reaper knew of the clouds went with it
        # So that whoever is well is looked at in time, however slow another is.
        seconds = SWEEP - PASS if sweep else PASS - CHECK
        report = self._reaping.run(sweep=sweep, seconds=seconds)
        self._tell(report)
        if not report.ongoing:
            record_pass(self._ledger, self._engine.id, report, sweep=sweep)

    def _takes_lease(self) -> bool:
        engines, me, now = self._ledger.engines, self._engine.id, time.time()
        try:
            if engines.acquire(_NAME, me, now + REAPER_LEASE, now):
                return True
            holder = engines.holder(_NAME)
            members = engines.list()
            self._membership.update(members, time.monotonic())
            process = {member.id: member.process for member in members}.get(holder or "")
            if holder is None or self._membership.process_lives(process) is not False:
                return False
            engines.release(_NAME, holder)
            return engines.acquire(_NAME, me, now + REAPER_LEASE, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the reaping
            log.warning("who reaps cannot be told: %s: %s", type(error).__name__, error)
            return True

    def _prepare_when_idle(self) -> None:
        if not self._until_idle and self._engine.idle:
            self._prepare()


def _tasks(webhooks: Mapping[str, Callable[[], object]]) -> list[BoundedTask]:
    """One for each: what one waits for, no other does."""
    return [BoundedTask(f"webhook-{name}", tell) for name, tell in webhooks.items()]


def _give_up() -> None:
    log.error("stopping takes more than %d s: what this engine held is left to the next", DRAIN)
    logging.shutdown()
    os._exit(1)
