"""The world of `bench/day.py`: nodes of vmrunner over one PostgreSQL, on a virtual clock, with a
played cloud, bucket and guests. Nodes can be killed, and the database stopped. All runs in this
thread, one thing at a time, in the order of the virtual clock."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import psycopg
from cryptography.fernet import Fernet
from greenlet import getcurrent

from bench.day_load import BOOT, DAY, DELETE, LOG, REFUSALS, REGIONS, TIMEOUT, TTL, Load
from bench.day_meter import BUCKET, CLIENT, CLOUD, JUDGES, LEDGER, Meter
from bench.day_node import Node
from bench.day_server import Server
from tests.faults import drawn_ids
from tests.faults.broken import Broken
from tests.faults.cloud_side import InMemory
from tests.faults.node import Guest
from tests.faults.promises import Promises
from tests.faults.store_side import MemoryStore
from tests.support import http_service
from vmrunner.engine import engine as engine_module
from vmrunner.engine import provider_answers, reporter
from vmrunner.engine.context import EngineLimits
from vmrunner.errors import LedgerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.old_rows import LONGEST_NIGHT
from vmrunner.lib import jitter
from vmrunner.model import BuildSpec, BuildState, Limits, Process, Result, Step
from vmrunner.providers.fake import Call, Clock, FakeProvider
from vmrunner.runtime import daemon
from vmrunner.services import submit
from vmrunner.store.object_gc import ObjectGc

KEY: Final = Fernet.generate_key().decode()
DOWN: Final = 20.0  # seconds that the database is away
DEAD: Final = 60.0  # … and a killed node
JUDGED: Final = 60.0  # between two looks of the judges
ASKED: Final = 30.0  # between two lists over HTTP
#: What a broken promise counts as.
KINDS: Final = {"1": "survivors", "2": "murders", "3": "doubles"}


class World(Promises):
    """The clock, the cloud, the bucket, the ledger and its server, the nodes."""

    many_hosts = True
    sweep_seconds = daemon.SWEEP

    def __init__(self, root: Path, server: Server, load: Load, nodes: int, seed: int) -> None:
        self.root, self.server, self.load, self.meter = root, server, load, Meter()
        self.url = server.databases.new()
        self.draw = Random(seed)
        # What is asked over HTTP goes by the database's clock in part: virtual time ends by now.
        self.clock = Clock(time.time())
        self.began = self.clock()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number, self._pids = itertools.count(), itertools.count(100)
        self.hub = getcurrent()
        self.cloud = InMemory(self.clock, REGIONS)
        self.cloud.boot_seconds, self.cloud.delete_seconds = BOOT, DELETE
        self.cloud.on_call = self._called
        self.store = MemoryStore(self.clock)
        self.meter.wrap(self.store, BUCKET, "put", "delete")
        self.limits = EngineLimits(limits=Limits(max_instances=load.live))
        self.down, self.down_at, self.up_at = False, 0.0, 0.0
        self.happened: Counter[str] = Counter()
        self.broken_promises: Counter[str] = Counter()
        self.findings: list[str] = []
        self.submitted: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self.guests: dict[Any, Guest] = {}
        self.submitting, self.peak = True, 0
        self.paused = 0.0  # seconds of pauses in retention
        self._promised()
        drawn_ids.draw(self.clock)
        jitter._GENERATOR.seed(seed)
        engine_module.log.setLevel(logging.CRITICAL)
        reporter.WRITE_RETRY = provider_answers.ANSWER_WAIT = 0.0
        self._patch = mock.patch.object(submit, "time", SimpleNamespace(time=self.clock))
        self._patch.start()
        self.truth = self.opened(f"{self.url}&application_name=judges", root / "truth")
        self.nodes = [Node(self, n, next(self._pids)) for n in range(nodes)]
        self.every(JUDGED, JUDGED, self._judge)
        self._http = ExitStack()
        self.service = self._http.enter_context(
            http_service.service(
                self._made(root / "http"),
                providers={name: {"kind": "fake"} for name in REGIONS},
                database={"url": f"{self.url}&application_name=http"},
                secret_key=KEY,
            )
        )
        self.service.clock[:] = [self.clock()]
        self.service.app._store = self.store
        self.client = self.service.client()
        self.every(ASKED, ASKED, self._ask_lists)

    def _promised(self) -> None:
        """What the judges read of a world, where it is nothing here."""
        self.broken, self.kills, self.started = None, [], Counter()
        self.unseen, self.sandboxes, self.lagging, self.refused = set(), set(), set(), set()
        self.trouble = self.untold = 0.0
        self.out, self.cut, self.overrun = {}, {}, {}
        self._last, self._named, self._freed = {}, {}, {}

    @staticmethod
    def _made(directory: Path) -> Path:
        directory.mkdir(mode=0o700)
        return directory

    def opened(self, url: str, root: Path) -> Ledger:
        if not root.exists():
            self._made(root)
        ledger = Ledger.open(url, data_dir=root, secret_key=KEY)
        if "write" not in vars(ledger._database):
            self.meter.wrap(ledger._database, LEDGER, "read", "write", "look_up")
        return ledger

    def providers(self) -> Mapping[str, FakeProvider]:
        found = self.cloud.providers(self.truth.installation, self.clock)
        for provider in found.values():
            self.meter.wrap(provider, CLOUD, "offers", "create", "look", "delete")
            self.meter.wrap_pages(provider, CLOUD, "sweep")
        return found

    def alive(self, process: Process) -> bool:
        return any(node.process == process and not node.dead for node in self.nodes)

    def standing(self) -> list[Any]:
        return self.cloud.standing()

    def seconds_of(self, build: str) -> float:
        return self._seconds[build]

    # --- time ---

    def at(self, when: float, work: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._number), work))

    def every(self, seconds: float, first: float, work: Callable[[], bool]) -> None:
        """Do it again and again, first after so many seconds, until it says false."""

        def again() -> None:
            if work():
                self.at(self.clock() + seconds, again)

        self.at(self.clock() + first, again)

    def run(self, until: Callable[[], bool]) -> None:
        """Let things happen in their order. It is asked after each judgement whether it is over."""
        while not until():
            judged = self.clock() + JUDGED
            while self._events[0][0] <= judged:
                when, _, work = heapq.heappop(self._events)
                self.clock.advance(max(0.0, when - self.clock()))
                work()
                for node in self.nodes:
                    node.hinted()
            self.clock.advance(max(0.0, judged - self.clock()))

    # --- what comes ---

    def begin(self, *, hours: float) -> None:
        """From now on builds come, a node is killed each hour, and the database stops once."""
        end = self.clock() + hours * 3600
        self.submitting = True

        def come() -> None:
            if not self.submitting or self.clock() >= end:
                self.submitting = False
                return
            if self.down:  # who submits asks again
                self.at(self.up_at + self.draw.random(), come)
                return
            self._submit()
            self.at(self.load.next(self.clock() - self.began, self.draw) + self.began, come)

        self.at(self.clock(), come)
        self.at(self.clock() + hours * 3600 * 0.5, self._stop_database)
        for hour in range(max(1, int(hours))):
            self.at(self.clock() + (hour + 0.7) * min(1.0, hours) * 3600, self._kill_node)

    def _submit(self) -> None:
        number = len(self.submitted)
        labels = {"team": f"t{number % 20}", "ref": "main"}
        region = self.draw.choice(list(REGIONS))
        mean = max(5.0, self.load.hold - BOOT - DELETE - 5.0)
        seconds = min(TIMEOUT - 100.0, 3.0 + self.draw.expovariate(1 / mean))
        if number % self.load.over_http == 0:
            build = self._submit_over_http(region, labels)
        else:
            spec = BuildSpec(
                steps=(Step(run="make test"),), provider=region, container="debian:trixie",
                timeout=TIMEOUT, ttl=TTL, labels=labels, retry_on_loss=True,
            )  # fmt: skip
            with self.meter.part("submit"):
                made = submit.ids.build_id()
                build = self.truth.builds.submit(spec, id=made, now=self.clock())[0].id
        self.submitted[build], self._seconds[build] = self.clock(), seconds

    def _submit_over_http(self, region: str, labels: Mapping[str, str]) -> str:
        body = {
            "steps": ["make test"], "provider": region, "container": "debian:trixie",
            "timeout": TIMEOUT, "ttl": TTL, "labels": labels, "retry_on_loss": True,
        }  # fmt: skip
        with self._asking("server"):
            answer = self.client.post("/api/v1/builds", json=body)
        build = str(http_service.only(answer)["id"])

        def ask() -> None:
            if self.down:
                self.at(self.up_at + 1.0, ask)
                return
            with self._asking("server"):
                for path in ("", "/logs"):
                    found = self.client.get(f"/api/v1/builds/{build}{path}")
                    assert found.status_code == 200, found.text
            if b"finished" not in found.content:
                self.happened["asked"] += 1

        self.at(self.clock() + self.draw.uniform(1.0, 2 * self.load.hold), ask)
        return build

    def _asking(self, part: str) -> Any:
        """A request: what this thread does for it is the client's."""
        return Asking(self, part)

    def _ask_lists(self) -> bool:
        for query in ({"limit": "100"}, {"limit": "100", "state": "running"}):
            if not self.down:
                with self.meter.sampled("GET /builds"), self._asking("lists"):
                    answer = self.client.get("/api/v1/builds", params=query)
                    assert answer.status_code == 200, answer.text
        return True

    # --- what befalls it ---

    def _called(self, call: Call) -> Any:
        with self.meter.part(JUDGES):
            if call.method == "delete":
                for ref in call.about:
                    self._judged(lambda: self._check_kill(ref))  # noqa: B023
            fates = REFUSALS.get(call.method, ())
            drawn = self.draw.random() if fates else 1.0
            for share, fault in fates:
                if drawn < share:
                    self.happened[f"{call.method}: {fault.value}"] += 1
                    return fault
                drawn -= share
            if call.method == "create" and self.draw.random() < self.load.lost:
                self._lose(call.about)
            return None

    def _lose(self, instance: str) -> None:
        """Some time after its birth a VM is gone."""

        def lose() -> None:
            for scope in self.cloud.scopes:
                for machine in self.cloud._named.get((scope, instance), ()):
                    if machine.alive:
                        self.happened["lost VMs"] += 1
                        self.cloud.preempt(machine)

        self.cloud.later(self.clock() + BOOT + self.draw.uniform(0, self.load.hold), lose)

    def _kill_node(self) -> None:
        living = [node for node in self.nodes if not node.dead]
        if len(living) < 2 and self.load.live:
            return
        node = self.draw.choice(living)
        node.kill()
        self.happened["killed nodes"] += 1

        def reborn() -> None:
            if self.down:
                self.at(self.up_at + 1.0, reborn)
                return
            self.nodes.remove(node)
            self.nodes.append(Node(self, node.number, next(self._pids)))

        self.at(self.clock() + DEAD, reborn)

    def _stop_database(self) -> None:
        self.down, self.down_at = True, self.clock()
        self.up_at = self.clock() + DOWN
        self.server.stop()
        self.happened["restarts of the database"] += 1

        def start() -> None:
            self.server.start()
            self.down, self.untold = False, self.clock()

        self.at(self.up_at, start)

    # --- its judges ---

    def _judged(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Broken as error:
            self.broken_promises[KINDS.get(str(error)[:1], "forgotten")] += 1
            self.findings.append(str(error))
        except LedgerError:
            self.broken_promises["unjudged"] += 1

    def _judge(self) -> bool:
        if not self.down:
            with self.meter.part(JUDGES):
                self._judged(self.check)
                self.peak = max(self.peak, sum(m.alive for m in self.standing()))
                living = {m.order.instance for m in self.standing() if m.order is not None}
                self._last = {name: life for name, life in self._last.items() if name in living}
                self._forget_dead()
        self.service.clock[:] = [self.clock()]
        return True

    def _forget_dead(self) -> None:
        """Let go of what the cloud shows no more, so that three days fit into memory."""
        before = self.clock() - self.cloud.tombstone
        cloud = self.cloud
        old = [m for m in cloud.machines.values() if m.died_at is not None and m.died_at < before]
        for machine in old:
            del cloud.machines[machine.ref]
            self.guests.pop(machine.ref, None)
            if machine.order is not None:
                place = machine.ref.scope, machine.order.instance
                cloud._by_instance.pop(place, None)
                cloud._named.pop(place, None)
        cloud._seen -= len(old)

    def quiet(self) -> bool:
        """Nothing comes and nothing is left to do."""
        return not (
            self.submitting
            or self.down
            or any(m.born_of_us for m in self.standing())
            or self.truth.instances.open()
            or self.truth.builds.queued(1)
            or self.truth.builds.driven()
            or self.truth.objects.logs_due(self.clock() + DAY, 1)
        )

    def count_forgotten(self) -> None:
        """Builds of which nobody was told the end, and lines that were lost."""
        question = (
            "SELECT id, state, result, log_bytes, log_object FROM builds WHERE removed_at IS NULL"
        )
        with psycopg.connect(self.url) as connection:
            rows = {row[0]: row[1:] for row in connection.execute(question).fetchall()}
        for build in self.submitted:
            state, result, size, log = rows.get(build, ("lost", None, 0, None))
            self.happened[f"ended: {result}"] += 1
            whole = result != Result.SUCCESS.value or (
                size >= len(LOG) and (log in self.store.objects)
            )
            if state != BuildState.FINISHED.value or not whole:
                self.broken_promises["forgotten"] += 1
                self.findings.append(f"6 {build}: {state} {result}, {size} bytes in {log}")

    # --- retention ---

    def night(self, ledger: Ledger, keep: float = 30 * DAY, rows: float = 90 * DAY) -> None:
        """What retention does in a night; pauses are counted, not waited for."""
        now = self.clock()

        def rest(seconds: float) -> None:
            self.paused += seconds

        with self.meter.part("retention"):
            ledger.removals.remove_old(now, keep, sleep=rest)
            ObjectGc(ledger, lambda: self.store, keep=keep, shared=True, clock=self.clock).run()
            ledger.old_rows.remove(now - rows, now, sleep=rest)
            ledger.settled_costs.add(now, sleep=rest, longest=LONGEST_NIGHT)

    def close(self) -> None:
        self._http.close()
        for node in self.nodes:
            if not node.dead:
                node.engine.close()
                node.ledger.close()
        self.truth.close()
        self._patch.stop()
        drawn_ids.stop()


class Asking:
    """The context of a request over HTTP."""

    def __init__(self, world: World, part: str) -> None:
        self._world, self._part = world, part

    def __enter__(self) -> None:
        self._world.service.clock[:] = [self._world.clock()]
        self._context = self._world.meter.part(self._part)
        self._context.__enter__()
        self._thread = time.thread_time()

    def __exit__(self, *error: Any) -> None:
        own = time.thread_time() - self._thread
        self._context.__exit__(None, None, None)
        self._world.meter.moved(CLIENT, self._part, own)
