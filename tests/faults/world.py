"""A world in which vmrunner can be killed at any effect and its promises are checked all the time.

Real parts: the ledger on SQLite, the engine, the reaper. Played: the cloud (`cloud_side`: the one
in memory, or one with its real driver over HTTP), the guest, the session, processes and time
(`node`).
"""

from __future__ import annotations

import itertools
import math
import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults import drawn_ids
from tests.faults.broken import Broken
from tests.faults.cloud_side import CloudResource, CloudSide, InMemory, with_order
from tests.faults.commands import Caller
from tests.faults.failover_side import Client, Servers
from tests.faults.host_side import Host, Hosts
from tests.faults.node import LOG, Guest, Node
from tests.faults.promises import WEBHOOK, LastLife, Promises
from tests.faults.store_side import MemoryStore, is_tidy, stored_source
from tests.faults.tasks import SharedClock
from vmrunner.engine.context import EngineLimits
from vmrunner.errors import Conflict, LedgerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.database import Database
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.restore_detection import RestoreDetector, place_of
from vmrunner.ledger.urls import parse_url
from vmrunner.lib import ids
from vmrunner.model import (
    BuildRecord,
    BuildSpec,
    Limits,
    NotifyEndpoint,
    NotifyEvent,
    Process,
    Ref,
    Scope,
    Step,
)
from vmrunner.providers import Provider
from vmrunner.providers.fake import Call, Clock, Fault, Plan

__all__ = ["LIMITS", "LOG", "PASS", "SWEEP", "TTL", "Broken", "World", "make_template"]

#: The usual numbers, a tenth or so of them, so that a life is quickly lived.
LIMITS = Limits(
    max_ttl=600,
    newborn=60,
    sighting_gap=10,
    requested=60,
    booting=60,
    ready=60,
    parking=60,
    waking=60,
    deleting=60,
    orphan_cap=5,
)
TTL = 120.0
BUILD_SECONDS = 8.0
SWEEP = 20.0
PASS = 5.0


def make_template(root: Path) -> Path:
    """An empty ledger with its files, to be copied for each world."""
    root.mkdir(mode=0o700)
    ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
    ended = frozenset({NotifyEvent.BUILD_ENDED})
    ledger.outbox.declare([NotifyEndpoint(name=WEBHOOK, events=ended)], 1e12)
    ledger.close()
    return root


class World(Promises):
    """The cloud, the time, the ledger's files, the processes; and the promises."""

    def __init__(
        self,
        template: Path,
        root: Path,
        *,
        cloud: Callable[[Clock], CloudSide] = InMemory,
        limits: Limits = LIMITS,
        max_instances: int = 20,
        pass_seconds: float = PASS,
        sweep_seconds: float = SWEEP,
        many_hosts: bool = False,
        airborne: bool = False,
        served: bool = False,
    ) -> None:
        """`airborne`: a call that takes long is in the air while all others go on, and so is a
        reaper's pass; else it takes everybody's time. `served`: nodes reach the ledger at servers,
        of which one may follow the other."""
        self.root = root
        self.airborne = airborne
        self.clock = SharedClock()
        drawn_ids.draw(self.clock)
        self.cloud = cloud(self.clock)
        self.cloud.on_call = self._called
        self.store = MemoryStore(self.clock)
        self.limits = EngineLimits(limits=replace(limits, max_instances=max_instances))
        self.pass_seconds, self.sweep_seconds = pass_seconds, sweep_seconds
        self.many_hosts = many_hosts
        self.build_seconds = BUILD_SECONDS
        self.exit_code = 0
        self.seconds: dict[str, float] = {}  # by build, where it is not `build_seconds`
        self.codes: dict[str, int] = {}
        self.container_gone: set[str] = set()  # builds whose container ends without a word
        self.killed: set[str] = set()  # builds whose step ends by KILL
        self.started: Counter[tuple[str, int]] = Counter()
        self.plans: dict[str, list[Any]] = {}
        self.next_call: list[Any] = []  # what becomes of the next calls, whichever they are
        self.judge: Callable[[Call], Any] | None = None
        self.dice: Callable[[Node, str], bool] | None = None  # does this process die here?
        self.nodes: list[Node] = []
        self.host = Host("m", "0")  # that processes run on, where nothing is said
        self.warm_up_seconds, self.warm_up_error = 0.0, ""
        self.warm: set[str] = set()  # builds whose sessions were given an open connection
        self.sandboxes: set[str] = set()
        self.callers: list[Caller] = []
        self.drops: Callable[[], bool] | None = None  # does a caller's connection break off here?
        self.living: set[int] = set()  # pids of processes that are not nodes
        self.user_cancelled: set[str] = set()  # builds that a user cancelled
        self.kills: list[str] = []
        self.overrun: dict[Ref, float] = {}
        self.trouble = self.untold = 0.0
        self._last: dict[str, LastLife] = {}
        self._named: dict[str, float] = {}
        self.unseen = set()
        self.out: dict[Scope, float] = {}
        self.cut: dict[Scope, float] = {}
        self._freed: dict[Ref, float] = {}
        self.broken: BaseException | None = None
        self.servers = Servers(self) if served else None
        self.acknowledged: set[str] = set()  # what was submitted to them
        self.refused: set[str] = set()  # VMs of which a cloud said that it makes none
        self.lagging: set[str] = set()  # builds and VMs of which a standby lacked something
        self._template = template
        self._pids = itertools.count(100)
        self._guests: dict[Ref, Guest] = {}
        self._whens: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self.truth = self._open()

    # --- its parts ---

    def _open(self) -> Ledger:
        """The empty ledger of the template, with a generation of its own."""
        for file in ("ledger.db", "secret.key", "installation"):
            shutil.copyfile(self._template / file, self.root / file)
        with sqlite3.connect(self.root / "ledger.db") as raw:
            raw.execute("UPDATE ledger SET generation = ?", (secrets.token_hex(8),))
        raw.close()
        return self.opened()

    def opened(self) -> Ledger:
        """The ledger whose files are there."""
        path = self.root / "ledger.db"
        with sqlite3.connect(path) as raw:
            ((installation, generation),) = raw.execute(
                "SELECT installation, generation FROM ledger"
            ).fetchall()
        raw.close()
        url = f"sqlite:///{path}"
        database = Database(parse_url(url))
        if self.servers is not None:
            self.servers.read_here(database)
        witness = RestoreDetector(self.root / "witness", place_of(path))
        return Ledger(
            database, self.seal(), witness, url=url, installation=installation,
            generation=generation,
        )  # fmt: skip

    def seal(self) -> Encryption:
        return Encryption((self.root / "secret.key").read_text().strip(), source="test")

    def ledger_of(self, node: Node) -> Ledger:
        """The ledger as that process has it."""
        if self.servers is None:
            return self.truth
        return self.servers.open(node, self.seal(), f"-{node.host.memory}")

    def lose_ledger(self) -> None:
        """The database is gone, the installation is kept: a new and empty one. All nodes died."""
        assert all(node.dead for node in self.nodes)
        self._end_callers()
        self.sandboxes.clear()
        self.truth.close()
        for path in self.root.glob("ledger*.db*"):
            path.unlink()
        if self.servers is not None:
            self.servers.begin_anew()
        self.acknowledged.clear()
        self.truth = self._open()
        self._whens.clear()  # what they waited for is forgotten

    @property
    def away(self) -> bool:
        """True while nobody takes writes to the ledger."""
        return self.servers is not None and not self.servers.promoted

    def set_back(self, lagging: set[str], missing: set[str]) -> None:
        """A standby that lacks these takes over."""
        self.lagging |= lagging
        self.acknowledged -= missing
        self.sandboxes -= missing
        for caller in self.callers:
            if caller.build.id in lagging:
                caller.kill()
        self.callers = [caller for caller in self.callers if not caller.dead]

    def provider(self) -> Provider:
        """A view of the first provider by somebody whose clock is right."""
        return self.cloud.providers(self.truth.installation, self.clock)[self.cloud.name]

    def node(self, **options: Any) -> Node:
        node = Node(self, next(self._pids), **options)
        self.nodes.append(node)
        return node

    def far_host(self, pid: int) -> Host:
        """A host that nothing runs on, with the disk of one that nothing runs on any more."""
        used = {node.host.memory for node in self.nodes if not node.dead}
        memory = next(str(n) for n in itertools.count() if str(n) not in used)
        return Host(f"m{pid}", memory)

    def clock_at_start(self, host: Host, skew: float) -> float | None:
        """What that host's clock is to be wrong by when a process is started there: as it is (None)
        where another runs."""
        used = any(node.host is host and not node.dead for node in self.nodes)
        return None if used else skew

    def is_off(self, scope: Scope) -> bool:
        """True if that is a host that is off, or asleep."""
        return isinstance(self.cloud, Hosts) and self.cloud.at[scope].host.off

    def alive(self, process: Process) -> bool:
        lives = any(n.process == process and not n.dead for n in self.nodes)
        return lives or process.pid in self.living

    def guest(self, machine: CloudResource) -> Guest:
        return self._guests.setdefault(machine.ref, Guest(machine))

    def seconds_of(self, build: BuildRecord) -> float:
        if build.spec.sandbox_ttl is not None:
            return math.inf
        return self.seconds.get(build.id, self.build_seconds)

    def code_of(self, build: BuildRecord) -> int:
        return self.codes.get(build.id, self.exit_code)

    def submit(
        self, *, submitter: int | None = None, source: bytes | None = None, **options: Any
    ) -> BuildRecord:
        """`source`: what it is to have, if the store takes that. `spot` is said only where there is
        such a market."""
        if not getattr(self.cloud, "has_spot", True):
            options.pop("spot", None)
        spec = BuildSpec(
            **{
                "steps": (Step(run="make"),),
                "provider": self.cloud.name,
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
        digest = stored_source(self, source) if source is not None else None
        submitted = {
            "id": ids.build_id(), "now": self.clock(), "submitter": process, "source": digest
        }  # fmt: skip
        if self.servers is None:
            return self.truth.builds.submit(spec, **submitted)[0]
        ledger = self.servers.open(Client(), self.seal(), "-client")
        try:
            build = ledger.builds.submit(spec, **submitted)[0]
        except LedgerError:  # whoever is not answered asks again, under the same id
            try:
                build = self.truth.builds.submit(spec, **submitted)[0]
            except Conflict:
                build = self.truth.builds.get(submitted["id"])
        finally:
            ledger.close()
        self.acknowledged.add(build.id)
        return build

    def sandbox(self, *, seconds: float = 60.0, **options: Any) -> BuildRecord:
        """Submit one that lives for so long from when it is ready."""
        build = self.submit(steps=(), sandbox_ttl=seconds, **options)
        self.sandboxes.add(build.id)
        return build

    def call(
        self, build: BuildRecord, commands: Mapping[str, float], *, polls: bool = False
    ) -> Caller:
        """Have somebody run commands in a sandbox, each for so many seconds."""
        self.callers.append(Caller(self, build, commands, polls=polls))
        return self.callers[-1]

    def _end_callers(self) -> None:
        for caller in self.callers:
            caller.kill()
        self.callers.clear()

    # --- time ---

    def when(self, condition: Callable[[], bool], action: Callable[[], object]) -> None:
        """Let something happen once, as soon as the condition is true."""
        self._whens.append((condition, action))

    def run(
        self, seconds: float, *, until: Callable[[], bool] | None = None, step: float = 1.0
    ) -> None:
        """Let time pass, all living nodes ticking; the promises are checked at every step."""
        end = self.clock() + seconds
        while self.clock() < end and not (until is not None and until()):
            for when in list(self._whens):
                if when[0]():
                    self._whens.remove(when)
                    when[1]()
            for node in list(self.nodes):
                if not node.dead and not node.asleep:
                    node.tick()
            for caller in self.callers:
                caller.step()
            self.check()
            self.clock.advance(step)

    def settle(self) -> None:
        """Let all come to its end, and see that nothing is left."""
        life = self.limits.limits
        self.run(TTL + 6 * life.newborn + 10 * self.sweep_seconds, until=self.quiet)
        self.check()
        self.nothing_left()

    def nothing_left(self) -> None:
        machines = [m for m in self.standing() if m.born_of_us]
        rows = self.truth.instances.open()
        builds = self.truth.builds.list(active=True)
        if machines or rows or builds:
            raise Broken(f"left: machines {machines}, rows {rows}, builds {builds}")
        if waiting := [caller.build.id for caller in self.callers if not caller.ended]:
            raise Broken(f"6 no forgotten line: nobody told the callers of {waiting}")
        self.check_told()
        if lost := self.acknowledged - {build.id for build in self.truth.builds.list()}:
            raise Broken(f"7 no lost build: {lost}")

    def quiet(self) -> bool:
        """Nothing is left to do."""
        return (
            not any(m.born_of_us for m in self.standing())
            and not self.truth.instances.open()
            and not self.truth.builds.queued(1)
            and not self.truth.builds.driven()
            and all(caller.ended for caller in self.callers)
            and (not any(node.stores for node in self.nodes) or is_tidy(self))
        )

    # --- what there is ---

    def ours(self) -> Iterator[CloudResource]:
        """All VMs that were ever made through the port."""
        self.cloud.settle()
        yield from with_order(self.cloud.machines.values())

    def standing(self) -> list[CloudResource]:
        """Everything that is not dead."""
        return self.cloud.standing()

    def _called(self, call: Call) -> Any:
        try:
            if call.method == "create":
                self._check_intent(call.about)
            elif call.method == "delete":
                for ref in call.about:
                    self._check_kill(ref)
        except Exception as error:
            self.broken = error  # whoever asked may catch it; `check` raises it for good
            raise
        if self.next_call:
            return self.next_call.pop(0)
        waiting = self.plans.get(call.method)
        if waiting:
            return waiting.pop(0)
        return self.judge(call) if self.judge is not None else None

    def fail(self, method: str, *faults: Fault, seconds: float = 0.0) -> None:
        """The next calls of this method fare like this."""
        self.plans.setdefault(method, []).extend(Plan(fault, seconds) for fault in faults)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self._end_callers()
        self.truth.close()
        self.cloud.close()
        drawn_ids.stop()


def once(world: World, action: str, *fates: Any) -> None:
    """The next requests for it, by one of ours, fare like that."""
    remaining = list(fates)
    world.judge = lambda call: remaining.pop(0) if call.provider == action and remaining else None
