"""A world in which vmrunner can be killed at any effect and its promises are checked all the time.

Real parts: the ledger on SQLite, the engine, the reaper. Played: the cloud (`providers.fake`), the
guest, the session, processes and time. A `Node` is one process of vmrunner; its ledger and its
provider are wrapped, and the wrapper counts effects and crashes before or after the one that the
test names. Nothing in production code knows of it.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrunner import ids
from vmrunner.desk import EngineLimits
from vmrunner.engine import Engine
from vmrunner.errors import Fenced, NotFound
from vmrunner.lanes import Inline
from vmrunner.ledger import Ledger
from vmrunner.model import (
    Access,
    Build,
    BuildSpec,
    BuildState,
    InstanceState,
    Kind,
    Limits,
    Offer,
    Order,
    Process,
    Reason,
    Ref,
    Result,
    Role,
    Step,
)
from vmrunner.peers import Peers
from vmrunner.providers.fake import Call, Clock, Cloud, FakeProvider, Fault, Machine, Plan
from vmrunner.reaping import Reaping
from vmrunner.session import Job, Verdict

#: The usual numbers, a tenth or so of them, so that a life is quickly lived.
LIMITS = Limits(
    max_ttl=600,
    newborn=60,
    sighting_gap=10,
    requested=60,
    booting=60,
    ready=60,
    deleting=60,
    orphan_cap=5,
)
TTL = 120.0
BUILD_SECONDS = 8.0
SWEEP = 20.0
PASS = 5.0
LOG = b"one\ntwo\nthree\n"

#: What changes the world, by part of the ledger.
EFFECTS = {
    "builds": {
        "advance",
        "steps_started",
        "finish",
        "hold",
        "requeue",
        "take_over",
        "request_cancel",
        "renew",
    },
    "instances": {
        "start",
        "record",
        "next_offer",
        "addresses",
        "doom",
        "tried",
        "close",
        "close_all",
    },
    "logs": {"append"},
    "events": {"add"},
    "engines": {"join", "beat", "leave"},
    "sightings": {"record"},
}
CLOUD_EFFECTS = {"create", "delete"}


class Crash(BaseException):
    """The process is dead: no handler of ours may catch it."""


class Broken(AssertionError):
    """A promise does not hold."""


@dataclass
class Guest:
    """What runs in one VM: the supervisor and the build."""

    machine: Machine
    highest: int = 0
    started: dict[int, float] = field(default_factory=dict)  # attempt → when

    def start(self, attempt: int, epoch: int, now: float) -> bool:
        """Start the steps of an attempt once; True when this call did. Refuses lower epochs."""
        if epoch < self.highest:
            raise Fenced("the supervisor heard a higher epoch")
        self.highest = epoch
        if attempt in self.started:
            return False
        self.started[attempt] = now
        return True


class Task:
    """A session's thread, which runs only while it holds the baton."""

    def __init__(self, node: Node, work: Callable[[], None]) -> None:
        self.node = node
        self.ended = False
        self._work = work
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run until it pauses or ends."""
        if not self.ended:
            self.node.world.task = self
            self._go.release()
            self._back.acquire()

    def pause(self) -> None:
        """Give the baton back; a process that died meanwhile ends here."""
        self._back.release()
        self._go.acquire()
        self.node.check()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.node.check()
            self._work()
        except Crash:
            self.node.dead = True
        finally:
            self.ended = True
            self._back.release()


class Session:
    """A played session: the calls of a real one, against a played guest."""

    def __init__(self, world: World, job: Job, reporter: Any) -> None:
        self.world = world
        self.job = job
        self.reporter = reporter
        self.stopped: Reason | None = None

    def stop(self, reason: Reason) -> None:
        self.stopped = reason

    def run(self) -> Verdict:
        world, say, job = self.world, self.reporter, self.job
        machine = world.cloud.machines[job.instance.ref]
        say.state(BuildState.CONNECTING)
        world.pause()
        if not self._there(machine):
            return self._lost(Reason.BOOT_FAILED)
        say.state(BuildState.PREPARING)
        world.pause()
        say.steps_started()
        guest = world.guest(machine)
        now = world.clock()
        if guest.start(job.build.attempt, job.build.epoch, now):
            world.started[job.build.id, job.build.attempt] += 1
        say.state(BuildState.RUNNING)
        done = guest.started[job.build.attempt] + world.build_seconds
        while world.clock() < done:
            world.pause()
            if not self._there(machine):
                return self._lost(Reason.VM_LOST)
            if self.stopped is not None:
                break
        stored = say.stored()
        if stored < len(LOG) and self._there(machine):
            say.log(len(LOG), LOG[stored:])
        if self.stopped is not None:
            late = self.stopped is Reason.DEADLINE
            return Verdict(
                result=Result.TIMEOUT if late else Result.CANCELLED,
                reason=self.stopped,
                exit_code=None,
                message="",
                lost=False,
            )
        say.state(BuildState.COLLECTING)
        code = world.exit_code
        return Verdict(
            result=Result.SUCCESS if code == 0 else Result.FAILURE,
            reason=Reason.EXIT_CODE,
            exit_code=code,
            message="",
            lost=False,
        )

    def _there(self, machine: Machine) -> bool:
        self.world.cloud.settle()
        return machine.died_at is None and not machine.stopped and not machine.hung

    @staticmethod
    def _lost(reason: Reason) -> Verdict:
        return Verdict(
            result=Result.ERROR, reason=reason, exit_code=None, message="lost", lost=True
        )


class Seam:
    """Around one part of the ledger, or the provider: counts effects, and crashes at one."""

    def __init__(self, node: Node, part: Any, effects: set[str], label: str) -> None:
        self._node, self._part, self._effects, self._label = node, part, effects, label

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if not callable(value):
            self._node.check()
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._node.check()
            if name not in self._effects:
                return value(*args, **kwargs)
            label = f"{self._label}.{name}"
            self._node.reach(f"before {label}")
            answer = value(*args, **kwargs)
            self._node.reach(f"after {label}")
            return answer

        return call


class Door:
    """A ledger whose parts are seams."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self._node, self._ledger = node, ledger
        for part, effects in EFFECTS.items():
            setattr(self, part, Seam(node, getattr(ledger, part), effects, part))

    def __getattr__(self, name: str) -> Any:
        self._node.check()
        return getattr(self._ledger, name)


class Paths:
    def __init__(self, root: Path) -> None:
        self.sources = self.artifacts = root
        self.wake = root / "wake"


class Node:
    """One process of vmrunner: an engine and, with `reaps`, a reaper."""

    def __init__(
        self, world: World, pid: int, *, crash_at: int | None = None, reaps: bool = True
    ) -> None:
        self.world = world
        self.process = Process(machine="m", boot="b", pid_namespace="n", pid=pid, started=pid)
        self.born = world.clock()
        self.dead = False
        self.crash_at = crash_at
        self.points: list[str] = []  # every place where it might have crashed
        self.tasks: list[Task] = []
        self._ledger = world.open_ledger()
        door = Door(self, self._ledger)
        self.provider = Seam(self, world.provider(), CLOUD_EFFECTS, "cloud")
        peers = Peers(one_host=True, alive=world.alive)
        self.engine = Engine(
            door,  # type: ignore[arg-type]
            {"fake": self.provider},  # type: ignore[dict-item]
            lambda job, reporter: Session(world, job, reporter),
            world.limits,
            process=self.process,
            kind="serve",
            paths=Paths(world.root),
            orders=world.order,
            clock=world.clock,
            monotonic=world.clock,
            peers=peers,
            pool=lambda _name, _size: Inline(),
            spawn=lambda _name, work: self.tasks.append(Task(self, work)),
            listen=False,
        )
        self.reaping = Reaping(
            self.engine.desk,
            Peers(one_host=True, alive=world.alive),
            lambda: self.engine.watching,
        )
        self._passed = self._swept = world.clock()
        self.reaps = reaps

    def check(self) -> None:
        if self.dead:
            raise Crash

    def reach(self, point: str) -> None:
        """One more place to crash at."""
        self.points.append(point)
        if self.crash_at is not None and len(self.points) > self.crash_at:
            self.dead = True
            raise Crash

    def tick(self) -> None:
        """One tick, one step of each session, and the reaper when its time has come."""
        try:
            self.check()
            self.engine.tick()
            for task in list(self.tasks):
                task.step()
            self.tasks = [task for task in self.tasks if not task.ended]
            self.check()
            now = self.world.clock()
            if self.reaps and now - self._passed >= PASS:
                self._passed = now
                sweep = now - self._swept >= SWEEP
                self._swept = now if sweep else self._swept
                self.reaping.run(sweep=sweep)
        except Crash:
            self.kill()

    def kill(self) -> None:
        """kill -9."""
        self.dead = True
        for task in self.tasks:
            task.step()  # it finds itself dead, and ends
        self.tasks = []
        self._ledger.close()
        self.engine._listener.close()

    def close(self) -> None:
        if not self.dead:
            self.kill()


class World:
    """The cloud, the time, the ledger's files, the processes; and the promises."""

    def __init__(self, root: Path, *, limits: Limits = LIMITS, max_instances: int = 20) -> None:
        self.root = root
        self.clock = Clock()
        self.cloud = Cloud(self.clock)
        self.cloud.boot_seconds = 2.0
        self.cloud.delete_seconds = 2.0
        self.cloud.on_call = self._called
        self.limits = EngineLimits(limits=Limits(**_fields(limits, max_instances)))
        self.build_seconds = BUILD_SECONDS
        self.exit_code = 0
        self.started: Counter[tuple[str, int]] = Counter()
        self.task: Task | None = None
        self.plans: dict[str, list[Plan]] = {}
        self.nodes: list[Node] = []
        self.living: set[int] = set()  # pids of processes that are not nodes
        self.truth = self.open_ledger()
        self.kills: list[str] = []
        self._pids = itertools.count(100)
        self._guests: dict[Ref, Guest] = {}
        self._mine: set[Ref] = set()

    # --- its parts ---

    def open_ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.root}/ledger.db", data_dir=self.root)

    def provider(self) -> FakeProvider:
        return FakeProvider("fake", self.cloud)

    def node(self, *, crash_at: int | None = None, reaps: bool = True) -> Node:
        node = Node(self, next(self._pids), crash_at=crash_at, reaps=reaps)
        self.nodes.append(node)
        return node

    def alive(self, process: Process, *, one_host: bool) -> bool:
        lives = any(n.process == process and not n.dead for n in self.nodes)
        return lives or process.pid in self.living

    def guest(self, machine: Machine) -> Guest:
        return self._guests.setdefault(machine.ref, Guest(machine))

    def pause(self) -> None:
        assert self.task is not None
        self.task.pause()

    def order(
        self, build: Build, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        order = Order(
            instance=instance,
            build=build.id,
            installation=self.truth.installation,
            generation=self.truth.generation,
            role=Role.BUILD,
            offer=offer,
            deadline=deadline,
            user_data=instance.encode(),
        )
        return order, Access(user_private="user", host_public="host")

    def submit(self, *, submitter: int | None = None, **options: Any) -> Build:
        spec = BuildSpec(
            **{
                "steps": (Step(run="make"),),
                "provider": "fake",
                "container": "c",
                "timeout": 60,
                "ttl": TTL,
                **options,
            }
        )
        process = None
        if submitter is not None:
            self.living.add(submitter)
            process = Process(
                machine="m", boot="b", pid_namespace="n", pid=submitter, started=submitter
            )
        build, _ = self.truth.builds.submit(
            spec, id=ids.build_id(), now=self.clock(), submitter=process
        )
        return build

    # --- time ---

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> None:
        """Let time pass, all living nodes ticking; the promises are checked at every step."""
        end = self.clock() + seconds
        while self.clock() < end and not (until is not None and until()):
            for node in self.nodes:
                if not node.dead:
                    node.tick()
            self.check()
            self.clock.advance(1.0)

    def settle(self) -> None:
        """Let all come to its end, and see that nothing is left."""
        self.run(TTL + 6 * LIMITS.newborn + 10 * SWEEP, until=self.quiet)
        self.check()
        left = [m for m in self.ours() if m.died_at is None]
        rows = self.truth.instances.open()
        builds = self.truth.builds.list(active=True)
        if left or rows or builds:
            raise Broken(f"left: machines {left}, rows {rows}, builds {builds}")

    def quiet(self) -> bool:
        """Nothing is left to do."""
        return (
            not self.truth.builds.list(active=True)
            and not self.truth.instances.open()
            and not any(m.died_at is None for m in self.ours())
        )

    # --- the promises ---

    def ours(self) -> Iterator[Machine]:
        """All that was ever made through the port."""
        yield from [m for m in self.cloud.things(Kind.INSTANCE) if m.order is not None]

    def check(self) -> None:
        """Promises 1, 3 and 5, now."""
        now = self.clock()
        # The oldest living reaper: G counts from when there was one.
        reaping = [node.born for node in self.nodes if not node.dead and node.reaps]
        since = min(reaping, default=now)
        alive: Counter[str] = Counter()
        for machine in self.ours():
            order = machine.order
            assert order is not None
            if machine.alive and now > max(order.deadline, since) + LIMITS.grace:
                raise Broken(f"1 no survivor: {order.instance} is alive past its deadline")
            if not machine.alive:
                continue
            row = self.truth.instances.get(order.instance)
            if row.state is InstanceState.GONE:
                raise Broken(f"5 gone means seen dead: {row.id} is alive, its row is closed")
            if row.state is not InstanceState.DELETING:
                alive[order.build] += 1
        for build, count in alive.items():
            if count > 1:
                raise Broken(f"3 no double: {count} machines live for {build}")
        for (build, attempt), count in self.started.items():
            if count > 1:
                raise Broken(f"3 no double: attempt {attempt} of {build} was started {count} times")

    def _called(self, call: Call) -> Plan | None:
        if call.method == "create":
            self._check_intent(call.about)
        elif call.method == "delete":
            for ref in call.about:
                self._check_kill(ref)
        waiting = self.plans.get(call.method)
        return waiting.pop(0) if waiting else None

    def _check_intent(self, instance: str) -> None:
        """Promise 4: the row, with its order, is durable before the cloud is asked."""
        try:
            row = self.truth.instances.get(instance)
            order = self.truth.instances.order(instance)
        except NotFound as error:
            raise Broken(f"4 intent before effect: {error}") from error
        if order.deadline != row.deadline or order.instance != row.id:
            raise Broken("4 intent before effect: another order")

    def _check_kill(self, ref: Ref) -> None:
        """Promise 2: nothing is deleted that should live."""
        machine = self.cloud.machines.get(ref)
        if machine is None or machine.died_at is not None:
            return
        self.kills.append(ref.id)
        if machine.tags.get("vmrunner:installation") != self.truth.installation:
            raise Broken(f"2 no murder: {ref.id} is another's")
        order, now = machine.order, self.clock()
        if order is None or now > order.deadline:
            return
        build = self.truth.builds.get(order.build)
        row = self.truth.instances.get(order.instance)
        orphaned = build.submitter is not None and not self.alive(build.submitter, one_host=True)
        slow = row.death is not None and row.death.value == "stuck"
        ended = machine.stopped or machine.hung or machine.preempted
        if not (
            build.finished
            or build.cancel is not None
            or orphaned
            or slow
            or ended
            or build.instance != order.instance
            or (row.ref is not None and row.ref != ref)
        ):
            raise Broken(f"2 no murder: {ref.id} of {build.id} ({build.state}) was to live")

    def fail(self, method: str, *faults: Fault, seconds: float = 0.0) -> None:
        """The next calls of this method fare like this."""
        self.plans.setdefault(method, []).extend(Plan(fault, seconds) for fault in faults)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.truth.close()


def _fields(limits: Limits, max_instances: int) -> dict[str, Any]:
    names = Limits.__dataclass_fields__
    return {name: getattr(limits, name) for name in names} | {"max_instances": max_instances}
