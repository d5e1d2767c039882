"""What the engine costs: starts and whole lives per CPU-second, on the fake cloud.

    python bench/engine.py [--builds 2000] [--at-once 64] [--profile]

The ledger is SQLite in a file with synchronous=FULL; its commits, each an fdatasync, are counted,
and beside them stands what this disk can do. A start is claim, intent row, create and reference; a
life is all of it: submit, start, session with six reports and a log chunk, verdict, delete, seen
dead.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from vmrunner.core.scheduling import PlannedStart
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.ledger import Ledger
from vmrunner.lib import ids, process
from vmrunner.model import (
    Access,
    BuildRecord,
    BuildSpec,
    BuildState,
    Limits,
    Offer,
    Order,
    Reason,
    Result,
    Role,
    Spec,
    Step,
)
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.session import End

if TYPE_CHECKING:
    from vmrunner.session.job import Reporter, SessionJob

GOALS = {"starts": 500, "lives": 150}


class Paths(NamedTuple):
    sources: Path
    artifacts: Path
    wake: Path


class Session:
    """A build that prints one line and succeeds at once."""

    def __init__(self, _job: SessionJob, reporter: Reporter) -> None:
        self.reporter = reporter

    def run(self) -> End:
        say = self.reporter
        say.state(BuildState.CONNECTING)
        say.state(BuildState.PREPARING)
        say.steps_started()
        say.state(BuildState.RUNNING)
        say.log(6, b"hello\n")
        say.state(BuildState.COLLECTING)
        return End(
            result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, message="", lost=False
        )

    def stop(self, reason: Reason) -> None:
        pass


class Bench(NamedTuple):
    ledger: Ledger
    cloud: Cloud
    engine: Engine
    commits: Counter[str]


class _Wall(Clock):
    """The fake cloud in real time."""

    def __call__(self) -> float:
        return time.time()


def orders(ledger: Ledger) -> Callable[..., tuple[Order, Access]]:
    access = Access(user_private="k" * 400, host_public="ssh-ed25519 " + "A" * 68)

    def order(
        build: BuildRecord, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        made = Order(
            instance=instance,
            build=build.id,
            installation=ledger.installation,
            generation=ledger.generation,
            role=Role.BUILD,
            offer=offer,
            deadline=deadline,
            user_data=b"#cloud-config\n" + b"x" * 2000,
        )
        return made, access

    return order


def bench(root: Path, at_once: int) -> Bench:
    ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
    commits: Counter[str] = Counter()
    write = ledger._database.write

    def counted(work: Callable[..., Any], **options: Any) -> Any:
        commits["all"] += 1
        return write(work, **options)

    ledger._database.write = counted  # type: ignore[method-assign]
    cloud = Cloud(_Wall())
    engine = Engine(
        ledger,
        {"fake": FakeProvider("fake", cloud)},
        Session,
        EngineLimits(limits=Limits(max_instances=at_once)),
        process=process.current(),
        kind="bench",
        paths=Paths(root, root, root / "wake"),
        orders=orders(ledger),
    )
    return Bench(ledger, cloud, engine, commits)


def spec() -> BuildSpec:
    return BuildSpec(
        steps=(Step(run="echo hello"),),
        provider="fake",
        container="debian:trixie",
        timeout=1800,
        ttl=2700,
        labels={"team": "core"},
    )


class Figure(NamedTuple):
    what: str
    count: int
    wall: float
    cpu: float
    commits: int


def measured(
    what: str, at: Bench, count: int, work: Callable[[], object], profile: cProfile.Profile | None
) -> Figure:
    before = at.commits["all"]
    wall, cpu = time.perf_counter(), time.process_time()
    if profile:
        profile.enable()
    work()
    if profile:
        profile.disable()
    return Figure(
        what,
        count,
        time.perf_counter() - wall,
        time.process_time() - cpu,
        at.commits["all"] - before,
    )


def starts(root: Path, builds: int, profile: cProfile.Profile | None) -> Figure:
    """Queued builds, until each has a machine whose reference is recorded."""
    at = bench(root, builds)
    for _ in range(builds):
        at.ledger.builds.submit(spec(), id=ids.build_id(), now=time.time())
    launcher = at.engine._launcher

    def work() -> None:
        offers = tuple(at.engine._context.providers["fake"].offers(Spec()))
        recorded = 0
        while recorded < builds:
            queued = at.ledger.builds.queued(64)
            if queued:
                launcher.start([PlannedStart(build=build, offers=offers) for build in queued])
            landed = launcher.collect()
            recorded += len(landed.booting)
            if not landed.booting:
                at.engine._listener.wait(0.01)

    figure = measured("starts", at, builds, work, profile)
    at.ledger.close()
    return figure


def lives(root: Path, builds: int, at_once: int, profile: cProfile.Profile | None) -> Figure:
    """From submit to seen dead."""
    at = bench(root, at_once)

    def work() -> None:
        submitted, pause = 0, 0.0
        while submitted < builds or not at.engine.idle:
            at.engine._listener.wait(pause)
            for _ in range(min(at_once, builds - submitted)):
                at.ledger.builds.submit(spec(), id=ids.build_id(), now=time.time())
                submitted += 1
            pause = at.engine.tick()

    figure = measured("lives", at, builds, work, profile)
    rows = at.ledger.instances.list()
    assert len(rows) == builds
    assert all(row.state == "gone" for row in rows)
    assert all(b.result is Result.SUCCESS for b in at.ledger.builds.list())
    assert not [m for m in at.cloud.things() if m.alive]
    at.engine.close()
    at.ledger.close()
    return figure


def disk(root: Path, seconds: float = 1.0) -> float:
    """fdatasyncs a second of 4 KiB appends, here."""
    with (root / "sync").open("wb", buffering=0) as file:
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


def parts(profile: cProfile.Profile) -> list[tuple[str, float]]:
    """Shares of the tick's thread's own time, by part of the code."""
    spent: Counter[str] = Counter()
    for (file, _, name), row in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "vmrunner/ledger" in file:
            part = "ledger (our code)"
        elif "sqlalchemy" in file:
            part = "SQLAlchemy"
        elif "sqlite3" in name or "sqlite3" in file:
            part = "SQLite"
        elif "cryptography" in file or "openssl" in name or "fernet" in file:
            part = "sealing"
        elif "json" in file:
            part = "JSON"
        elif "vmrunner" in file:
            part = "engine"
        elif "acquire" in name or "select" in name or "wait" in name:
            part = "waiting"
        else:
            part = "the rest of Python"
        spent[part] += row[2]
    total = sum(spent.values())
    return [(part, 100 * time / total) for part, time in spent.most_common()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--builds", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    parser.add_argument("--directory", type=Path, help="where the databases are made")
    arguments = parser.parse_args()
    console = Console()
    table = Table("", "builds", "wall s", "CPU s", "per CPU-s", "goal", "commits", "fsync/s")
    figures, profiles = [], {}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        for what in GOALS:
            root = Path(name) / what
            root.mkdir()
            profile = profiles[what] = cProfile.Profile() if arguments.profile else None
            if what == "starts":
                figures.append(starts(root, arguments.builds, profile))
            else:
                figures.append(lives(root, arguments.builds, arguments.at_once, profile))
        syncs = disk(Path(name))
    for figure in figures:
        table.add_row(
            figure.what,
            str(figure.count),
            f"{figure.wall:.2f}",
            f"{figure.cpu:.2f}",
            f"{figure.count / figure.cpu:.0f}",
            str(GOALS[figure.what]),
            str(figure.commits),
            f"{figure.commits / figure.wall:.0f}",
        )
    console.print(table)
    console.print(f"this disk alone: {syncs:.0f} fdatasync/s of 4 KiB")
    for what, profile in profiles.items():
        if profile is not None:
            shares = ", ".join(f"{part} {share:.0f} %" for part, share in parts(profile))
            console.print(f"{what}, the tick's thread (profiled, so slower): {shares}")
    return 0 if all(f.count / f.cpu >= GOALS[f.what] for f in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
