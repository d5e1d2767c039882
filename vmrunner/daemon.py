"""`vmrunner serve`: an engine, and a reaper on a timer. The only import of APScheduler.

APScheduler is used for when, never for what: its jobs lie in memory and only start a thread. So a
run that hangs is seen and replaced, where `max_instances` would silence the reaper for ever; no
job is missed for being late, and none is lost for being renamed.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from vmrunner.engine import Engine
from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger import Ledger
from vmrunner.peers import Peers
from vmrunner.reaping import Reaping, Report

log = logging.getLogger("vmrunner.serve")

PASS: Final = 30.0  # seconds between two passes over the ledger
LEASE: Final = 45.0  # of the one that reaps
BOUND: Final = 600.0  # a pass that takes longer is given up, and another is started
SILENCE: Final = 300.0  # without a finished pass, it is said loudly
IDLE: Final = 10.0  # so long without work until `until_idle` ends
DAY: Final = 86_400.0
_NAME: Final = "reaper"


class Bounded:
    """One thing that runs in a thread of its own, once at a time, and not for ever."""

    def __init__(self, name: str, work: Callable[[], None], bound: float = BOUND) -> None:
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
        sources: Path,
        cron: str = "*/5 * * * *",
        until_idle: bool = False,
        keep_logs: float = 30 * DAY,
    ) -> None:
        """`cron` says when to sweep; `keep_logs` how long logs outlive their build, in seconds.
        Raises ConfigError when `cron` cannot be read."""
        self._engine = engine
        self._ledger = ledger
        self._sources = sources
        self._until_idle = until_idle
        self._keep_logs = keep_logs
        self._stopped = threading.Event()
        self._idle_since: float | None = None
        self._started = time.monotonic()
        self._complained = self._started
        # Its own view of who lives: the engine's is not made for two threads.
        peers = Peers(one_host=ledger.url.startswith("sqlite"))
        self._reaping = Reaping(engine.desk, peers, lambda: engine.watching)
        self._passes = Bounded("ledger-pass", lambda: self._reap(sweep=False))
        self._sweeps = Bounded("sweep", lambda: self._reap(sweep=True))
        self._nightly = Bounded("retention", self._retain)
        self._scheduler = self._schedule(cron)

    def run(self, *, signals: bool = True) -> None:
        """Serve. With `signals`, SIGTERM and SIGINT stop it; only in the main thread."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        self._scheduler.start()
        self._passes()
        self._sweeps()
        try:
            while not self._stopped.is_set():
                self._engine.run(self._over)
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

    def stop(self) -> None:
        """Hand over what runs, and let `run` return within seconds; from any thread or signal."""
        self._engine.draining = True
        self._stopped.set()
        self._engine.wake()

    # --- within ---

    def _over(self) -> bool:
        self._listen_for_silence()
        if self._stopped.is_set():
            return True
        now = time.monotonic()
        if not (self._until_idle and self._engine.idle):
            self._idle_since = None
            return False
        self._idle_since = self._idle_since if self._idle_since is not None else now
        return now - self._idle_since >= IDLE

    def _listen_for_silence(self) -> None:
        """The engine's thread watches the reaper's: a dead reaper must not be a silent one."""
        now = time.monotonic()
        last = max(self._started, self._passes.finished or 0.0, self._complained)
        if now - last > SILENCE:
            self._complained = now
            log.critical("the reaper has not finished a pass for %d s", int(SILENCE))

    def _schedule(self, cron: str) -> Any:
        try:
            sweeps = CronTrigger.from_crontab(cron)
        except ValueError as error:
            raise ConfigError(
                f"reaper.sweep: {cron!r} is no cron expression: {error}",
                hint='for instance "*/5 * * * *"',
            ) from error
        scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        scheduler.add_job(self._passes, IntervalTrigger(seconds=PASS), id="ledger-pass")
        scheduler.add_job(self._sweeps, sweeps, id="sweep")
        scheduler.add_job(self._nightly, CronTrigger(hour=3, minute=7), id="retention")
        return scheduler

    def _reap(self, *, sweep: bool) -> None:
        """One pass, if no other process reaps. Without a ledger to ask, everybody does: past the
        deadline a kill needs none, and two reapers are harmless."""
        now = time.time()
        try:
            mine = self._ledger.engines.acquire(_NAME, self._engine.id, now + LEASE, now)
        except LedgerError as error:
            log.warning("%s", error)
            mine = True
        if mine:
            tell(self._reaping.run(sweep=sweep))

    def _retain(self) -> None:
        """Nightly: logs past their time, and packed sources that no build will ever read."""
        now = time.time()
        gone = self._ledger.logs.delete_before(now - self._keep_logs)
        log.info("retention: %d log chunks", gone)
        needed = {build.id for build in self._ledger.builds.list(active=True)}
        for path in self._sources.glob("*.tar"):
            # A young file may belong to a submit that has not written its row yet.
            if path.stem not in needed and path.stat().st_mtime < now - DAY:
                path.unlink(missing_ok=True)


def tell(report: Report) -> None:
    """Log what a pass did and could not do."""
    for line in report.lines:
        log.warning("%s %s %s: %s %s", line.what, line.kind, line.id, line.reason, line.outcome)
    for alarm in report.alarms:
        log.error("%s", alarm)
    for part in report.unread:
        log.warning("not read: %s", part)


def reap(
    engine: Engine,
    *,
    dry_run: bool = False,
    provider: str | None = None,
    settle: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """One pass over the ledger and the cloud, for the command line and the API.

    `engine` brings ledger, providers and limits; it need not run. Waits at most `settle` seconds
    until what it killed is seen dead, so that the rows of a local host are closed when it ends."""
    peers = Peers(one_host=engine.desk.ledger.url.startswith("sqlite"))
    reaping = Reaping(engine.desk, peers, lambda: engine.watching)
    report = reaping.run(dry_run=dry_run, only=provider)
    if dry_run:
        return report
    reaping.end_abandoned()
    waited = 0.0
    while waited < settle and reaping.unburied(only=provider):
        sleep(0.25)
        waited += 0.25
    return report
