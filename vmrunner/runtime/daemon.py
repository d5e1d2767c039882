"""`vmrunner serve`: an engine, and a reaper on a timer.

What recurs is timed by the monotonic clock (`timers`); only cron lines name times of the wall clock
(`cron_jobs`). A timer never does, it lets do: each task has a thread that is there from the start
(`bounded_task`), so that a run that hangs is seen and replaced.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.ledger import Ledger
from vmrunner.lib.rare_messages import RareMessage
from vmrunner.lib.threads import DaemonThreadPool
from vmrunner.model import Budget, PoolSpec
from vmrunner.providers import Provider
from vmrunner.providers.retired_providers import parts
from vmrunner.reaper.ledger_calls import LEDGER_PATIENCE, LedgerCalls
from vmrunner.reaper.once import record_pass
from vmrunner.reaper.pass_log import PassLog
from vmrunner.reaper.reaper import Reaper
from vmrunner.reaper.turns import ReaperTurns
from vmrunner.runtime.bounded_task import BoundedTask
from vmrunner.runtime.cron_jobs import CronJobs
from vmrunner.runtime.stop_watchdog import StopWatchdog
from vmrunner.runtime.timers import Timers

log = logging.getLogger("vmrunner.serve")

PASS: Final = 30.0  # seconds between two passes over the ledger
SWEEP: Final = 300.0  # … between two sweeps, whatever the cron line adds
CHECK: Final = 5.0  # … between two looks at who reaps: a dead reaper's heir must be within G
DRAIN: Final = 30.0  # a stop that takes longer ends the process: what it held is taken over
SILENCE: Final = 300.0  # without a finished pass, it is said loudly
IDLE_EXIT: Final = 10.0  # so long without work until `until_idle` ends
UPLOAD: Final = 5.0  # … between two looks for what builds left
NOTIFY: Final = 5.0  # … for what webhooks are to be told
WATCH: Final = 30.0  # … for what they are to be alarmed of
PRICES: Final = 3600.0  # between two looks for old prices
PREPARE: Final = 60.0  # between two looks for a template that is missing
PREPARE_BOUND: Final = 2400.0  # as BOUND: a template's VM and its clone may take 15 min each
UPLOADING: Final = 300.0  # a run of uploads ends after the one that passes this
_CRON_KEY: Final = "reaper.sweep"
_NIGHTLY: Final = "7 3 * * *"
_NOBODYS: Final = ("",)  # where no provider is configured there is one who reaps all the same


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonUpdate:
    """The part of a new configuration that a running daemon takes over."""

    providers: Mapping[str, Provider]
    limits: EngineLimits
    cron: str
    pools: Mapping[str, PoolSpec] = field(default_factory=dict)
    webhooks: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    budgets: Sequence[Budget] = ()


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
        upload: Callable[[Callable[[], bool]], object] = lambda _until: None,
        prepare: Callable[[], object] = lambda: None,
        webhooks: Mapping[str, Callable[[], object]] | None = None,
        watch: Callable[[], object] = lambda: None,
        prices: Callable[[], object] = lambda: None,
        renew: Callable[[], DaemonUpdate] | None = None,
    ) -> None:
        """`cron` says when to sweep beside every five minutes; `tidy` is what is done nightly,
        `upload` every few seconds, until what it is given says that it is enough, and what tells
        each of the `webhooks`, which wait for no other; `watch` looks twice a minute for what is to
        be told; `prepare` is called each minute in which no build wants the processors; `prices`
        asks the clouds for theirs where they are old; `renew` reads the configuration again. Raises
        ConfigError when `cron` cannot be read."""
        self._engine = engine
        self._ledger = ledger
        self._until_idle = until_idle
        self._prepare = prepare
        self._renew = renew
        # No events: a signal's handler would wait for the lock of the one that it interrupts.
        self._renewing = False
        self._stopped = False
        self._watchdog = StopWatchdog(DRAIN)
        self._idle_since: float | None = None
        self._abandoned_since: float | None = None
        self._started = time.monotonic()
        self._complained = self._started
        self._asks_sweep = False  # of all that is ours, whenever it was swept
        self._passed: dict[str, float] = {}  # by provider: when its last pass began, monotonic
        self._swept: dict[str, float] = {}
        self._doubt = RareMessage(CHECK, SILENCE)  # that nobody knows who reaps
        self._ours: Collection[str] = ()  # the providers that this process reaps
        context = engine.context
        # Its own view of who lives: the engine's is not made for two threads.
        self._membership = Membership(one_host=ledger.url.startswith("sqlite"))
        self._turns = ReaperTurns(
            ledger, engine.id, self._membership, context.reap_threads,
            clock=context.clock, monotonic=context.monotonic,
        )  # fmt: skip
        self._askers = DaemonThreadPool("ask-ledger", None)
        self._ask = LedgerCalls(self._askers, patience=LEDGER_PATIENCE)
        self._tell = PassLog(time.monotonic)
        self._reaping = Reaper(context, self._membership, lambda: engine.watching, self._ask)
        self._passes = BoundedTask("ledger-pass", self._pass)
        self._overdue = BoundedTask("overdue", self._kill_overdue)
        self._sweeps = BoundedTask("sweep", self._sweep)
        self._nightly = BoundedTask("retention", tidy)
        # Two uploaders of one process would read all of it twice.
        self._uploads = BoundedTask("uploads", lambda: upload(_ends_after(UPLOADING)), alone=True)
        self._prices = BoundedTask("prices", prices)
        self._preparations = BoundedTask("templates", self._prepare_when_idle, PREPARE_BOUND)
        self._watches = BoundedTask("alarms", watch)
        self._webhooks = _tasks(webhooks or {})
        self._timers = Timers()
        self._cron = CronJobs()
        self._cron.set("sweep", cron, _CRON_KEY, self._sweep_all)
        self._cron.set("retention", _NIGHTLY, "retention", self._nightly)

    def run(self, *, signals: bool = True) -> None:
        """Serve. With `signals`, SIGTERM and SIGINT stop it and SIGHUP lets it read its
        configuration again; only in the main thread."""
        self._watchdog.start()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
            signal.signal(signal.SIGHUP, lambda *_: self.reload())
        self._begin()
        try:
            while not self._stopped:
                self._engine.run(self._over)
                if self._engine.refused is not None:
                    raise self._engine.refused
                if self._stopped or self._engine.retire():
                    break
                self._idle_since = None  # work came while we left
        finally:
            self._timers.stop()
            self._cron.stop()
            for task in self._tasks():
                task.stop()
            self._engine.close()
            try:
                self._ask(self._turns.release)
            except LedgerError as error:
                log.warning("%s", error)
            self._askers.close()
            self._watchdog.disarm()

    def stop(self) -> None:
        """Hand over what runs, and let `run` return within seconds; from any thread or signal. A
        call that hangs keeps it no longer than `DRAIN`: the next engine takes over all the same."""
        self._engine.draining = True
        self._stopped = True
        self._watchdog.arm()
        self._engine.wake()

    def reload(self) -> None:
        """Read the configuration again, soon; from any thread or signal."""
        self._renewing = True
        self._engine.wake()

    # --- within ---

    def _tasks(self) -> list[BoundedTask]:
        return [
            self._passes, self._overdue, self._sweeps, self._nightly, self._uploads, self._prices,
            self._preparations, self._watches, *self._webhooks,
        ]  # fmt: skip

    def _begin(self) -> None:
        """Begin all threads that the reaper needs while there are some; then the timers."""
        context = self._engine.context
        for name in (part for item in context.providers.items() for part in parts(*item)):
            context.reap_threads(name)
        for task in self._tasks():
            task.start()
        for name, seconds, work in (
            ("ledger-pass", CHECK, self._passes),
            ("overdue", CHECK, self._overdue),
            ("sweep", PASS, self._sweeps),
            ("templates", PREPARE, self._preparations),
            ("uploads", UPLOAD, self._uploads),
            ("webhooks", NOTIFY, self._tell_webhooks),
            ("alarms", WATCH, self._watches),
            ("cron", CHECK, self._cron.look),
        ):
            self._timers.every(name, seconds, work, at_once=work is self._passes)
        self._timers.every("prices", PRICES, self._prices, at_once=True)
        self._cron.start()
        self._timers.start()

    def _over(self) -> bool:
        self._listen_for_silence()
        if self._stopped or self._engine.refused is not None:
            return True
        if self._renewing:
            self._renewing = False
            self._take_configuration()
        now = time.monotonic()
        if not (self._until_idle and (self._engine.idle or self._is_abandoned(now))):
            self._idle_since = None
            return False
        self._idle_since = self._idle_since if self._idle_since is not None else now
        return now - self._idle_since >= IDLE_EXIT

    def _is_abandoned(self, now: float) -> bool:
        """True when the ledger was deleted, and all that it told of had its deadline so long ago
        that each provider was passed over since, and was then seen dead."""
        if not self._engine.is_abandoned():
            self._abandoned_since = None
            return False
        if self._abandoned_since is None:
            self._abandoned_since = now
        return now - self._abandoned_since >= 2 * PASS and not self._reaping.has_survivors()

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
        for former in self._webhooks:
            former.stop()
        self._webhooks = _tasks(new.webhooks)
        context.budgets = new.budgets
        self._watches()  # what is new is named at once
        self._cron.set("sweep", new.cron, _CRON_KEY, self._sweep_all)
        log.info("the configuration was read again; providers: %s", ", ".join(new.providers))

    def _listen_for_silence(self) -> None:
        """The engine's thread watches the reaper's: a dead reaper must not be a silent one."""
        now = time.monotonic()
        last = max(self._started, self._passes.finished or 0.0, self._complained)
        if now - last > SILENCE:
            self._complained = now
            log.critical("the reaper has not finished a pass for %d s", int(SILENCE))

    def _tell_webhooks(self) -> None:
        for task in self._webhooks:
            task()

    # --- reaping ---

    def _pass(self) -> None:
        """See which providers are ours to reap, and pass over those whose time has come. Without a
        ledger to ask, everybody reaps: past the deadline a kill needs none."""
        providers, now = self._engine.context.providers, time.monotonic()
        try:
            self._turns.learn(providers)
            turns = self._ask(lambda: self._turns.take(providers))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the reaping
            if self._doubt.is_due(now):
                log.warning("who reaps cannot be told: %s: %s", type(error).__name__, error)
            self._ours = tuple(providers)
        else:
            if self._doubt.reset():
                log.info("who reaps can be told again")
            self._ours = turns.ours if providers else _NOBODYS
            for name in turns.fresh:  # what the former reaper knew of the cloud went with it
                self._passed.pop(name, None)
                if now - self._swept.get(name, float("-inf")) >= PASS:
                    self._swept.pop(name, None)
            if turns.fresh:
                self._sweeps()
        self._reap(self._due(self._passed, PASS - CHECK / 2), sweep=False)

    def _sweep_all(self) -> None:
        self._asks_sweep = True
        self._sweeps()

    def _sweep(self) -> None:
        """Sweep what is ours and was not swept for long, or all of it where that was asked."""
        if self._asks_sweep:
            self._swept.clear()
        self._asks_sweep = False
        self._reap(self._due(self._swept, SWEEP - PASS / 2), sweep=True)

    def _due(self, begun: Mapping[str, float], seconds: float) -> list[str]:
        """Return the providers that are ours and for which so much time has passed since then."""
        now = time.monotonic()
        return [n for n in self._ours if now - begun.get(n, float("-inf")) >= seconds]

    def _reap(self, names: Collection[str], *, sweep: bool) -> None:
        """Reap these providers once, if there are any."""
        if not names:
            return
        now = time.monotonic()
        self._passed |= dict.fromkeys(names, now)
        if sweep:
            self._swept |= dict.fromkeys(names, now)
        # So that a healthy provider is looked at in time, however slow another is.
        seconds = SWEEP - PASS if sweep else PASS - CHECK
        report = self._reaping.run(sweep=sweep, only=names, seconds=seconds)
        self._tell(report)
        well = set(names).difference(report.blind, report.ongoing)
        self._turns.blind(report.blind)
        if sweep:
            self._turns.well(well)
        if not report.ongoing and well:
            self._ask(lambda: record_pass(self._ledger, self._engine.id, report, sweep=sweep))

    def _kill_overdue(self) -> None:
        """Kill what is known to be past its deadline, where the passes that should have seen to it
        wait for the ledger or whatever else."""
        self._tell(self._reaping.kill_overdue(self._ours, late=PASS, seconds=CHECK))

    def _prepare_when_idle(self) -> None:
        if not self._until_idle and self._engine.idle:
            self._prepare()


def _tasks(webhooks: Mapping[str, Callable[[], object]]) -> list[BoundedTask]:
    """One for each: what one waits for, no other does."""
    return [BoundedTask(f"webhook-{name}", tell) for name, tell in webhooks.items()]


def _ends_after(seconds: float) -> Callable[[], bool]:
    """Return a question that says yes after so many seconds."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
