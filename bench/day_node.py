"""One `vmrunner serve` of `bench/day.py`: engine, reaper and uploader are real; its sessions are
played, each in a greenlet, so that ten thousand wait without a thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from bench.day_load import DAY, LOG
from bench.day_meter import SESSIONS
from bench.engine import Paths, orders
from tests.faults.cloud_side import CloudResource
from tests.faults.host_side import Host
from tests.faults.node import Guest
from tests.support.inline_pool import Inline
from vmrunner.engine.engine import BUSY_TICK, MIN_TICK, Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import LedgerError
from vmrunner.model import BuildState, BuildUsage, EventKind, Process, Reason, Result
from vmrunner.reaper.once import record_pass
from vmrunner.reaper.reaper import Reaper
from vmrunner.reaper.turns import ReaperTurns
from vmrunner.runtime import daemon
from vmrunner.session import End
from vmrunner.store.uploader import Uploader

if TYPE_CHECKING:
    from bench.day_world import World
    from vmrunner.session.job import SessionJob


class Played:
    """A session, and the guest that it talks to."""

    def __init__(self, node: Node, job: SessionJob, say: Any) -> None:
        self.node, self.world, self.job, self.say = node, node.world, job, say
        self.stopped: Reason | None = None
        self._greenlet = getcurrent()
        self._turn = 0

    def stop(self, reason: Reason) -> None:
        self.stopped = reason
        self._wake_at(self.world.clock())

    def run(self) -> End:
        world, say, job = self.world, self.say, self.job
        ref = job.instance.ref
        assert ref is not None
        machine = world.cloud.machines[ref]
        say.state(BuildState.CONNECTING)
        self._sleep(1.0)
        if self.stopped or not machine.alive:
            return _lost(self.stopped or Reason.VM_LOST)
        say.state(BuildState.PREPARING)
        self._sleep(2.0)
        say.steps_started()
        guest = world.guests.setdefault(ref, Guest(machine))
        if guest.start(job.build.attempt, job.build.epoch, world.clock()):
            world.started[job.build.id, job.build.attempt] += 1
            say.event(EventKind.STEP_STARTED, step=0, offset=0)
        say.state(BuildState.RUNNING)
        until = guest.started[job.build.attempt] + world.seconds_of(job.build.id)
        half = (world.clock() + until) / 2
        if half > world.clock():
            self._sleep(half - world.clock())
            self._log(len(LOG) // 2, machine)
        while world.clock() < until and not self.stopped and machine.alive:
            self._sleep(until - world.clock())
        if self.stopped in (Reason.PREEMPTED, Reason.VM_LOST) or not machine.alive:
            return _lost(self.stopped or Reason.VM_LOST)
        self._log(len(LOG), machine)
        if self.stopped is not None:
            late = self.stopped is Reason.DEADLINE
            result = Result.TIMEOUT if late else Result.CANCELLED
            return End(result=result, reason=self.stopped)
        say.event(EventKind.STEP_ENDED, step=0, exit_code=0, seconds=1.0, offset=len(LOG))
        say.state(BuildState.COLLECTING)
        usage = BuildUsage(cpu_seconds=1.0, memory_peak=1 << 28)
        return End(result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, usage=usage)

    def _log(self, end: int, machine: CloudResource) -> None:
        stored = self.say.stored()
        if machine.alive and stored < end:
            self.say.log(end, LOG[stored:end])

    def _sleep(self, seconds: float) -> None:
        self._wake_at(self.world.clock() + seconds)
        self.world.hub.switch()

    def _wake_at(self, when: float) -> None:
        self._turn += 1
        turn = self._turn

        def wake() -> None:
            if self.world.down:  # its thread would wait for the ledger
                self.world.at(self.world.up_at + 1.0, wake)
            elif turn == self._turn and not self.node.dead and not self._greenlet.dead:
                self._turn += 1
                with self.world.meter.part(SESSIONS):
                    self._greenlet.switch()

        self.world.at(when, wake)


def _lost(reason: Reason) -> End:
    return End(result=Result.ERROR, reason=reason, message="lost", lost=True)


class Node:
    """One `vmrunner serve`: its engine, and what it does beside."""

    reaps, asleep = True, False

    def __init__(self, world: World, number: int, pid: int) -> None:
        self.world, self.number = world, number
        self.awake_since, self.dead = world.clock(), False
        self.host = Host(f"m{number}", str(number))
        self.process = Process(
            machine=f"m{number}", boot="b", pid_namespace="n", pid=pid, started=pid
        )
        meter, clock = world.meter, world.clock
        root = world.root / f"node-{number}"
        url = f"{world.url}&application_name=node-{number}"
        self.ledger = world.opened(url, root)
        providers = world.providers()
        self.engine = Engine(
            self.ledger,
            providers,
            lambda job, say: Played(self, job, say),
            world.limits,
            process=self.process,
            kind="serve",
            paths=Paths(root, root, root / "wake"),
            orders=orders(self.ledger),
            clock=clock,
            monotonic=clock,
            membership=self._membership(),
            pool=lambda _name, _size: Inline(),
            spawn=lambda _name, work: self._spawn(work),
            listen=False,
        )
        meter.wrap(self.engine._launcher, "launcher", "start", "collect", "resend")
        context = self.engine.context
        membership = self._membership()
        self.reaper = Reaper(context, membership, lambda: self.engine.watching)
        self.turns = ReaperTurns(
            self.ledger, self.engine.id, membership, context.reap_threads, clock=clock,
            monotonic=clock,
        )  # fmt: skip
        self.uploader = Uploader(
            self.ledger, lambda: world.store, sources=root, artifacts=root, clock=clock,
            monotonic=clock,
        )  # fmt: skip
        self._passed: dict[str, float] = {}
        self._swept: dict[str, float] = {}
        self._ticked = self._tick_at = float("-inf")
        self._tick()
        stagger = number * daemon.CHECK / 4
        world.every(daemon.CHECK, stagger, self._alive("reaper", self._reap))
        world.every(daemon.UPLOAD, stagger, self._alive("uploads", lambda: self.uploader.run()))
        world.every(
            DAY, DAY + 60 * number, self._alive("retention", lambda: world.night(self.ledger))
        )

    def _membership(self) -> Membership:
        def alive(process: Process, **_: bool) -> bool | None:
            if process.machine != self.process.machine:
                return None
            return self.world.alive(process)

        return Membership(one_host=False, alive=alive)

    def _spawn(self, work: Callable[[], None]) -> None:
        with self.world.meter.part(SESSIONS):
            greenlet(work, self.world.hub).switch()

    def _alive(self, part: str, work: Callable[[], object]) -> Callable[[], bool]:
        """The work of this node's thread: false once it is dead."""

        def run() -> bool:
            if not self.dead:
                with self.world.meter.part(part), suppress(LedgerError):
                    work()
            return not self.dead

        return run

    def _tick(self) -> None:
        if self.dead or self.world.clock() < self._tick_at:
            return  # dead, or another time was set since
        world, self._ticked = self.world, self.world.clock()
        with world.meter.sampled("tick"), world.meter.part("engine"):
            try:
                pause = self.engine.tick()
            except LedgerError:
                pause = BUSY_TICK
        self._wakes_at(world.clock() + pause)

    def _wakes_at(self, when: float) -> None:
        self._tick_at = when
        self.world.at(when, self._tick)

    def hinted(self) -> None:
        """Tick soon, if something woke it."""
        listener = self.engine._listener
        if not self.dead and listener._hinted and listener.wait(0):
            when = max(self.world.clock(), self._ticked + MIN_TICK)
            if when < self._tick_at:
                self._wakes_at(when)

    def _reap(self) -> None:
        """The daemon's: turns, a pass each half minute, a sweep each five minutes."""
        engine, now = self.engine, self.world.clock()
        providers = engine.context.providers
        try:
            self.turns.learn(providers)
            ours = self.turns.take(providers).ours
        except LedgerError:
            ours = frozenset(providers)
        for begun, seconds, sweep in (
            (self._passed, daemon.PASS - daemon.CHECK / 2, False),
            (self._swept, daemon.SWEEP - daemon.PASS / 2, True),
        ):
            names = [n for n in sorted(ours) if now - begun.get(n, float("-inf")) >= seconds]
            begun |= dict.fromkeys(names, now)
            if names:
                report = self.reaper.run(sweep=sweep, only=names)
                self.world.happened["reaped"] += len(report.lines)
                record_pass(self.ledger, engine.id, report, sweep=sweep)
        self.reaper.kill_overdue(ours, late=daemon.PASS)

    def kill(self) -> None:
        """kill -9: what it held is let go of without a word."""
        self.dead = True
        self.engine._listener.close()
        self.ledger.close()
