"""What a node costs by how much is open, over and shared: idle ticks, builds, the first page.

    python bench/nodes.py [--live 100,1000,10000] [--finished 100000] [--nodes 1,2,4] [--builds 200]
                          [--rounds 3]

The ledger is a PostgreSQL of its own, the cloud is played: a look takes no time here, and its own
CPU is not counted. Nodes tick in turn in this process, each with connections of its own. CPU is
a process's that plays one world; the worlds take turns. Rows are what PostgreSQL says it read.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import psycopg
from cryptography.fernet import Fernet
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.engine import Paths, Session, orders, spec
from tests.support import http_service, postgres
from tests.support.inline_pool import Inline
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.ledger import Ledger, tables
from vmrunner.ledger.open_rows import WHOLE
from vmrunner.lib import ids, process
from vmrunner.model import BuildState, Limits
from vmrunner.providers.fake import SCOPE, Clock, Cloud, FakeProvider
from vmrunner.session import End

if TYPE_CHECKING:
    from vmrunner.session.job import Reporter, SessionJob

P = ParamSpec("P")
T = TypeVar("T")

KEY = Fernet.generate_key().decode()
IDLE = WHOLE  # seconds of virtual time: all is read again once in it
_READ = (
    "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
)


class _Endless(BaseException):
    """The session goes on for ever: its thread is not played."""


class LongSession:
    """A build of which nothing is heard once it runs."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def run(self) -> End:
        for state in (BuildState.CONNECTING, BuildState.PREPARING, BuildState.RUNNING):
            self._reporter.state(state)
        raise _Endless

    def stop(self, reason: object) -> None:
        pass


def spawn(_name: str, work: Callable[[], None]) -> None:
    with suppress(_Endless):
        work()


class World:
    """A ledger, a cloud, and nodes in turn."""

    def __init__(self, url: str, root: Path, nodes: int) -> None:
        self.url, self.root, self.clock = url, root, Clock(time.time())
        self.cloud = Cloud(self.clock)
        self.looking = 0.0
        self.looked: set[str] = set()
        self.costs: list[float] = []  # of each tick, CPU
        self.nodes = [self._node(f"node-{n}") for n in range(nodes)]

    def _node(self, name: str) -> Engine:
        root = self.root / name
        ledger = Ledger.open(f"{self.url}&application_name={name}", data_dir=root, secret_key=KEY)
        provider = FakeProvider("fake", self.cloud)
        look = provider.look

        def counted(keys: Any) -> Any:
            began = time.process_time()
            self.looked |= {key.instance for key in keys}
            try:
                return look(keys)
            finally:
                self.looking += time.process_time() - began

        provider.look = counted  # type: ignore[method-assign]
        return Engine(
            ledger,
            {"fake": provider},
            lambda job, reporter: _session(job, reporter),
            EngineLimits(limits=Limits(max_instances=100_000)),
            process=process.current(),
            kind="serve",
            paths=Paths(root, root, root / "wake"),
            orders=orders(ledger),
            clock=self.clock,
            monotonic=self.clock,
            pool=lambda _name, _size: Inline(),
            spawn=spawn,
            listen=False,
        )

    @property
    def ledger(self) -> Ledger:
        return self.nodes[0].context.ledger

    def run(self, until: Callable[[], bool]) -> int:
        """Tick in turn, each when its time has come; how often."""
        next_ticks, ticks = [self.clock()] * len(self.nodes), 0
        while not until():
            n = min(range(len(next_ticks)), key=next_ticks.__getitem__)
            self.clock.advance(max(0.0, next_ticks[n] - self.clock()))
            began, looking = time.process_time(), self.looking
            next_ticks[n] = self.clock() + self.nodes[n].tick()
            self.costs.append(time.process_time() - began - (self.looking - looking))
            ticks += 1
        return ticks

    def submit(self, *, long: bool = False) -> str:
        build = ids.build_id()
        build_spec = spec()
        build_spec = build_spec.__class__(**{**_fields(build_spec), "name": "long" if long else ""})
        self.ledger.builds.submit(build_spec, id=build, now=self.clock())
        return build

    def fill(self, live: int, finished: int) -> None:
        """So many builds that run, in equal parts at each node, and so many that are over: copies
        of one of each."""
        over, running = self.submit(), self.submit(long=True)
        builds = self.ledger.builds
        self.run(
            lambda: builds.get(running).state is BuildState.RUNNING and builds.get(over).finished
        )
        self.run(lambda: len(self.ledger.instances.open()) == 1)
        self._copy(over, finished - 1, "0")
        for part, node in enumerate(self.nodes):
            count = live // len(self.nodes) - (part == 0)
            self._copy(running, count, str(part + 1), owner=node.id)
        (machine,) = [thing for thing in self.cloud.things() if thing.alive]
        for row in self.ledger.instances.open():
            if row.ref != machine.ref and row.ref is not None:
                tags = machine.tags | {"vmrunner:instance": row.id}
                made = self.cloud.plant(SCOPE, tags, order=machine.order)
                self.cloud.machines[row.ref] = made
                self.cloud._standing[row.ref] = made
                made.ref = row.ref
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ANALYZE")

    def _copy(self, build: str, count: int, mark: str, owner: str | None = None) -> None:
        row = self.ledger.instances.get(self.ledger.builds.get(build).instance or "")
        own = f"'{owner}'" if owner else "owner"
        revision = "(SELECT last FROM revisions)"  # a change, for earlier readers
        number = f"'{mark}' || lpad(n::text, 7, '0')"
        new = {
            "builds": {
                "id": f"id || {number}", "instance": f"instance || {number}", "owner": own,
                "revision": revision,
            },
            "instances": {
                "id": f"id || {number}", "build": f"build || {number}", "owner": own,
                "revision": revision,
                "ref": f"replace(ref, '{row.ref.id if row.ref else ''}', 'copy-' || {number})",
            },
            "events": {"build": f"build || {number}"},
        }  # fmt: skip
        where = {"builds": f"id = '{build}'", "events": f"build = '{build}'"}
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("UPDATE revisions SET last = last + 1")
            for table in (tables.BUILDS, tables.INSTANCES, tables.EVENTS):
                names = list(table.column_names)
                listed = ", ".join(f'"{name}"' for name in names)
                values = ", ".join(new[table.name].get(name, f'"{name}"') for name in names)
                such = where.get(table.name, f"build = '{build}'")
                connection.execute(
                    f"INSERT INTO {table.name} ({listed}) SELECT {values} "
                    f"FROM {table.name}, generate_series(1, {count}) AS n WHERE {such}".encode()
                )

    def rows_read(self) -> int:
        for node in self.nodes:
            node.context.ledger._database.read(
                lambda c: c.exec_driver_sql("SELECT pg_stat_force_next_flush()").scalar()
            )
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(_READ.encode()).fetchone()
            return int(row[0]) if row else 0

    def all_over(self, builds: Sequence[str]) -> bool:
        return all(self.ledger.builds.get(build).finished for build in builds)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
            node.context.ledger.close()


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _session(job: SessionJob, reporter: Reporter) -> Any:
    return LongSession(reporter) if job.build.spec.name == "long" else Session(job, reporter)


class Figure(NamedTuple):
    live: int
    nodes: int
    tick_ms: float
    median_ms: float
    rows: float
    build_ms: float
    ticks_a_build: float


def measured(
    url: str, live: int, finished: int, nodes: int, builds: int, *, profiled: bool
) -> Figure:
    """Measure one world, in a process of its own: a former world's heap would be looked through by
    Python's garbage collector as the nodes' own."""
    with tempfile.TemporaryDirectory() as name, _profiled(profiled) as profile:
        world = World(url, Path(name), nodes)
        world.fill(live, finished)
        until = world.clock() + 30.0  # all has its session, and was looked at
        world.run(lambda: world.clock() >= until)

        before, world.looking = world.rows_read(), 0.0
        world.looked.clear()
        world.costs.clear()
        until = world.clock() + IDLE
        if profile:
            profile.enable()
        ticks = world.run(lambda: world.clock() >= until)
        if profile:
            profile.disable()
        idle, median = sum(world.costs) / ticks, statistics.median(world.costs)
        rows = (world.rows_read() - before) / ticks
        assert len(world.looked) == live, f"of {live} only {len(world.looked)} were looked at"

        world.looking = 0.0
        began, done, lived = time.process_time(), 0, 0
        while done < builds:
            some = [world.submit() for _ in range(20)]
            lived += world.run(partial(world.all_over, some))
            done += len(some)
        lived += world.run(lambda: len(world.ledger.instances.open()) <= live)
        spent = time.process_time() - began - world.looking
        world.close()
        return Figure(
            live, nodes, 1000 * idle, 1000 * median, rows, 1000 * spent / done, lived / done
        )


def first_page(url: str, live: int, finished: int) -> list[tuple[float, float]]:
    """Milliseconds of the first page of all builds, and of those that run, over HTTP: of the wall
    clock, and of this process's CPU, with the client; the median of 20 each."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        world = World(url, Path(name), 1)
        world.fill(live, finished)
        database = {"url": f"{world.url}&application_name=node-0"}
        settings = {"database": database, "secret_key": KEY}
        with http_service.service(Path(name), **settings) as service:
            client = service.client()
            for query in ({"limit": "100"}, {"limit": "100", "state": "running"}):
                walls, cpus = [], []
                for _ in range(20):
                    began, busy = time.perf_counter(), time.process_time()
                    answer = client.get("/api/v1/builds", params=query)
                    walls.append(1000 * (time.perf_counter() - began))
                    cpus.append(1000 * (time.process_time() - busy))
                    assert len(answer.json()["items"]) == 100
                found.append((sorted(walls)[10], sorted(cpus)[10]))
        world.close()
    return found


def alone(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Do it in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *given, **named).result()


@contextmanager
def _profiled(on: bool) -> Iterator[cProfile.Profile | None]:
    profile = cProfile.Profile() if on else None
    yield profile
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--live", default="100,1000,10000")
    parser.add_argument("--nodes", default="1,2,4")
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    parser.add_argument("--profile", action="store_true", help="of the idle ticks")
    arguments = parser.parse_args()
    table = Table(
        "live",
        "nodes",
        "idle tick, CPU ms",
        "its median",
        "rows a tick",
        "build, CPU ms",
        "ticks a build",
    )
    worlds = [
        (int(live), int(nodes))
        for nodes in arguments.nodes.split(",")
        for live in arguments.live.split(",")
    ]
    found: dict[tuple[int, int], list[Figure]] = {world: [] for world in worlds}
    with postgres.running() as server:
        for live, nodes in worlds * arguments.rounds:
            figure = alone(
                measured, server.new(), live, arguments.finished, nodes, arguments.builds,
                profiled=arguments.profile,
            )  # fmt: skip
            print(figure, file=sys.stderr, flush=True)
            found[live, nodes].append(figure)
        pages = alone(first_page, server.new(), 10_000, arguments.finished)
    for figures in found.values():
        middle = Figure(*map(statistics.median, zip(*figures, strict=True)))
        table.add_row(
            str(middle.live), str(middle.nodes), f"{middle.tick_ms:.2f}",
            f"{middle.median_ms:.2f}", f"{middle.rows:.0f}",
            f"{middle.build_ms:.1f}", f"{middle.ticks_a_build:.1f}",
        )  # fmt: skip
    Console().print(table)
    text = ", ".join(f"{wall:.0f} ms ({cpu:.0f} ms CPU)" for wall, cpu in pages)
    Console().print(f"first page of all builds, and of those that run, over HTTP: {text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
