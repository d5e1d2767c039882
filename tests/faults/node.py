"""One process of vmrunner that can be killed, or put to sleep, at any effect.

Its ledger and its provider are wrapped; the wrapper counts effects and stops before or after the
one that the test names. The guest and the session are played. Nothing in production code knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.commands import PlayedCommands, reachable
from tests.faults.host_side import Host
from tests.faults.seams import CLOUD_EFFECTS, STORE_EFFECTS, LedgerSeam, Seam
from tests.faults.store_side import KEEP, check_source
from tests.faults.tasks import Crash, InTheAir, Task
from tests.support.inline_pool import Inline
from tests.support.ledger_builds import orders
from vmrunner.engine import provider_answers, reporter, sessions
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.errors import Fenced, LedgerError
from vmrunner.model import BuildRecord, BuildState, PoolSpec, Process, Reason, Result
from vmrunner.reaper.reaper import LOST, Reaper
from vmrunner.session import End, SessionJob
from vmrunner.session.protocol import EndFrame
from vmrunner.store.object_gc import ObjectGc
from vmrunner.store.uploader import Uploader

if TYPE_CHECKING:
    from tests.faults.cloud_side import CloudResource
    from tests.faults.world import World
    from vmrunner.session.warm_up import WarmUpJob

reporter.WRITE_RETRY = 0.0  # time is played: nobody waits for it
provider_answers.ANSWER_WAIT = 0.0
sessions.CONTAINER_PAUSE = 0.0

LOG = b"one\ntwo\nthree\n"


@dataclass
class Guest:
    """What runs in one VM: the supervisor and the build."""

    machine: CloudResource
    highest: int = 0
    started: dict[int, float] = field(default_factory=dict)  # attempt → when
    commands: PlayedCommands = field(default_factory=PlayedCommands)  # of a sandbox

    def start(self, attempt: int, epoch: int, now: float) -> bool:
        """Start the steps of an attempt once; True when this call did. Refuses lower epochs."""
        if epoch < self.highest:
            raise Fenced("the supervisor heard a higher epoch")
        self.highest = epoch
        if attempt in self.started:
            return False
        self.started[attempt] = now
        return True


class Session:
    """A played session: the calls of a real one, against a played guest."""

    def __init__(self, world: World, job: SessionJob, reporter: Any) -> None:
        self.world = world
        self.job = job
        self.reporter = reporter
        self.stopped: Reason | None = None
        if job.connection is not None:
            world.warm.add(job.build.id)

    def stop(self, reason: Reason) -> None:
        self.stopped = reason

    def run(self) -> End:
        world, say, job = self.world, self.reporter, self.job
        machine = world.cloud.machines[job.instance.ref]
        say.state(BuildState.CONNECTING)
        Task.here.task.pause()
        if not self._there(machine):
            return self._lost(Reason.BOOT_FAILED)
        say.state(BuildState.PREPARING)
        Task.here.task.pause()
        check_source(world, job.build)
        say.steps_started()
        if not self._there(machine):
            return self._lost(Reason.VM_LOST)
        if world.cloud.seals and not machine.sealed:
            raise AssertionError(f"{machine.ref.id}: its metadata service is on, and steps start")
        guest = world.guest(machine)
        if guest.start(job.build.attempt, job.build.epoch, world.clock()):
            world.started[job.build.id, job.build.attempt] += 1
        say.state(BuildState.RUNNING)
        began = guest.started[job.build.attempt]
        while world.clock() < began + world.seconds_of(job.build):
            Task.here.task.pause()
            if not self._there(machine):
                return self._lost(Reason.VM_LOST)
            if self.stopped is not None:
                break
        stored = say.stored()  # it may wait for the ledger, and the VM end meanwhile
        reached = self._there(machine)
        if reached and stored < len(LOG):
            say.log(len(LOG), LOG[stored:])
        if self.stopped in (Reason.PREEMPTED, Reason.VM_LOST):
            return self._lost(self.stopped)
        if self.stopped is None and not reached:
            return self._lost(Reason.VM_LOST)  # it told neither the log nor, after it, an exit code
        if self.stopped is not None:
            late = self.stopped is Reason.DEADLINE
            return End(
                result=Result.TIMEOUT if late else Result.CANCELLED,
                reason=self.stopped,
                exit_code=None,
                message="",
                lost=False,
            )
        say.state(BuildState.COLLECTING)
        return self._exited(job.build)

    def _exited(self, build: BuildRecord) -> End:
        if build.id in self.world.container_gone:
            return EndFrame(Reason.VM_LOST, None, "", container_gone=True).end
        if build.id in self.world.killed:
            return EndFrame(Reason.SIGNAL, 137, "").end
        code = self.world.code_of(build)
        return End(
            result=Result.SUCCESS if code == 0 else Result.FAILURE,
            reason=Reason.EXIT_CODE,
            exit_code=code,
            message="",
            lost=False,
        )

    def _there(self, machine: CloudResource) -> bool:
        return reachable(self.world, machine)

    @staticmethod
    def _lost(reason: Reason) -> End:
        return End(result=Result.ERROR, reason=reason, exit_code=None, message="lost", lost=True)


class WarmUp:
    """A played warm-up: it needs its VM to be there for a step, and for as long as the world
    says; it fails where the world says why."""

    def __init__(self, world: World, job: WarmUpJob) -> None:
        self.world, self.job = world, job

    def stop(self) -> None:
        """It ends by itself."""

    def run(self) -> WarmUp:
        until = self.world.clock() + self.world.warm_up_seconds
        Task.here.task.pause()
        while self.world.clock() < until:
            Task.here.task.pause()
        if self.world.warm_up_error:
            raise ConnectionError(self.world.warm_up_error)
        row = self.world.truth.instances.get(self.job.instance)
        machine = self.world.cloud.machines[row.ref]
        if not reachable(self.world, machine):
            raise ConnectionError("it is not there")
        return self

    def close(self) -> None:
        """The connection that it stands for."""


class Paths:
    def __init__(self, root: Path) -> None:
        self.sources = self.artifacts = root
        self.wake = root / "wake"


class Node:
    """One process of vmrunner: an engine and a reaper, or one of them.

    `crash_at`: kill it at this effect; `sleep_at`: `sleep()` is called there, and then it goes on
    as if nothing had been. `host`: what it runs on, else the world's, or with `far` one of its own;
    `skew` sets its clock, for all that runs there."""

    def __init__(
        self,
        world: World,
        pid: int,
        *,
        crash_at: int | None = None,
        sleep_at: int | None = None,
        sleep: Callable[[Node], None] | None = None,
        reaps: bool = True,
        drives: bool = True,
        sweeps: bool = True,
        far: bool = False,
        host: Host | None = None,
        skew: float | None = None,
        stores: bool = False,
        pools: Mapping[str, PoolSpec] | None = None,
    ) -> None:
        self.world = world
        self.host = host or (world.far_host(pid) if far else world.host)
        if skew is not None:
            self.host.skew = skew
        machine, boot = self.host.machine, self.host.boot
        self.process = Process(machine=machine, boot=boot, pid_namespace="n", pid=pid, started=pid)
        self.awake_since = world.clock()
        self.dead = self._killed = False
        self._asleep = self._ledger_down = False
        self.crash_at, self.sleep_at, self.sleep = crash_at, sleep_at, sleep
        self.reaps, self.drives, self.sweeps, self.stores = reaps, drives, sweeps, stores
        self.threadless = False  # its host starts no more threads
        self.points: list[str] = []  # every place where it might have crashed
        self.tasks: list[Task] = []
        cloud = self.host.vms or world.cloud
        providers = cloud.providers(world.truth.installation, self._clock)
        self._ledger = world.ledger_of(self)
        ledger: Any = LedgerSeam(self, self._ledger)
        self.engine = Engine(
            ledger,
            {
                name: Seam(self, provider, CLOUD_EFFECTS, "cloud")  # type: ignore[misc]
                for name, provider in providers.items()
            },
            lambda job, reporter: Session(world, job, reporter),
            world.limits,
            process=self.process,
            kind="serve",
            paths=Paths(world.root),
            orders=orders(self._ledger),
            clock=self._clock,
            monotonic=world.clock,
            membership=self._membership(),
            pool=lambda _name, _size: InTheAir(self) if world.airborne else Inline(),
            spawn=lambda _name, work: self._spawn(work),
            listen=False,
            warm_ups=lambda job: WarmUp(world, job),
            pools=pools,
        )
        self.reaping = Reaper(self.engine.context, self._membership(), lambda: self.engine.watching)
        self._passed = self._swept = float("-inf")  # it begins with both, as `serve` does
        store: Any = Seam(self, world.store, STORE_EFFECTS, "store")
        place, clock = world.root, self._clock
        self.store = Uploader(
            ledger,
            lambda: store,
            sources=place,
            artifacts=place,
            clock=clock,
            monotonic=world.clock,
        ).run
        self.collect = ObjectGc(
            ledger, lambda: store, keep=KEEP, shared=world.many_hosts, clock=clock
        ).run
        self._stored = self._collected = float("-inf")

    def _clock(self) -> float:
        """Its host's clock."""
        return self.world.clock() + self.skew

    @property
    def skew(self) -> float:
        return self.host.skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.host.skew = seconds

    @property
    def asleep(self) -> bool:
        return self._asleep or self.host.off

    @asleep.setter
    def asleep(self, asleep: bool) -> None:
        self._asleep = asleep

    @property
    def ledger_down(self) -> bool:
        return self._ledger_down or self.host.cut

    @ledger_down.setter
    def ledger_down(self, down: bool) -> None:
        self._ledger_down = down

    def _spawn(self, work: Callable[[], None]) -> None:
        """A thread of the engine, as long as its host has any."""
        if self.threadless:
            raise RuntimeError("can't start new thread")
        self.tasks.append(Task(self, work))

    def begin(self, work: Callable[[], None]) -> Task:
        """Let something run beside the rest, from now on."""
        task = Task(self, work)
        self.tasks.append(task)
        task.step()
        return task

    def _membership(self) -> Membership:
        def alive(process: Process, *, one_host: bool) -> bool | None:
            far = process.machine != self.process.machine
            return None if far else self.world.alive(process)

        return Membership(one_host=not self.world.many_hosts, alive=alive)

    def check(self) -> None:
        if self.dead:
            raise Crash

    def reach(self, point: str) -> None:
        """One more place to crash or sleep at."""
        self.points.append(point)
        index = len(self.points) - 1
        if self.crash_at is not None and index >= self.crash_at:
            self.dead = True
            raise Crash
        if self.sleep_at == index and self.sleep is not None:
            self.asleep = True
            self.sleep(self)
            self.asleep = False
            self.awake_since = self.world.clock()  # there was nobody until now
            self.check()
        if self.world.dice is not None and self.world.dice(self, point):
            self.dead = True
            raise Crash

    def tick(self) -> None:
        """One tick, one step of each session, and the reaper when its time has come."""
        try:
            self.check()
            if self.drives and not self.ledger_down:
                with suppress(LedgerError):  # an engine waits for its ledger
                    self.engine.tick()
            for task in list(self.tasks):
                task.step()
            self.tasks = [task for task in self.tasks if not task.ended]
            self.check()
            if self.reaps:
                self._reap()
            if self.stores:
                self._keep_store()
        except LedgerError:
            pass  # so do uploads
        except Crash:
            self.kill()

    def _reap(self) -> None:
        now, world = self.world.clock(), self.world
        if now - self._passed >= world.pass_seconds:
            self._passed = now
            # In the air a pass goes on as a task of its own, and a later round tells of it: to
            # wait for it here would keep the baton that it needs.
            seconds = 0.0 if world.airborne else LOST
            self.reaping.run(sweep=False, seconds=seconds)
            if self.sweeps and now - self._swept >= world.sweep_seconds:
                self._swept = now
                self.reaping.run(sweep=True, seconds=seconds)

    def _keep_store(self) -> None:
        """What `serve` does beside; it collects more often than that, since worlds are short."""
        now, world = self.world.clock(), self.world
        if now - self._stored >= world.pass_seconds:
            self._stored = now
            self.store()
        if now - self._collected >= world.sweep_seconds:
            self._collected = now
            self.collect()

    def kill(self) -> None:
        """kill -9."""
        self.dead = True
        if self._killed:
            return
        self._killed = True
        for task in self.tasks:
            task.step()  # it finds itself dead, and ends
        self.tasks = []
        self.engine._listener.close()
        if self._ledger is not self.world.truth:
            self._ledger.close()

    def close(self) -> None:
        self.kill()
