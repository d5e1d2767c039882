"""What a sweep costs: calls, CPU, memory; and how fast a backlog dies under EC2's API limits.

    python bench/sweep.py [--resources 10000] [--expired 1000] [--backlog 10000] [--pairs 3]

CPU is compared with merely listing the same cloud in the same run, by turns, and the median of the
pairs counts. The listing is EC2's XML, read by botocore (`bench/wire.py`); the fake's own listing,
which only hands over what lies in memory, is told beside it. Exit 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import engine as engines
from tests.support.inline_pool import Inline
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import Membership
from vmrunner.ledger import Ledger
from vmrunner.ledger.transfer_types import LaunchRequest
from vmrunner.lib import ids, process
from vmrunner.model import Access, Instance, InstanceState, Kind, Limits, Order, Role, Spec
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.providers.fake.limits import EC2, Throttle
from vmrunner.reaper.kills import DELETE_BATCH
from vmrunner.reaper.reaper import Reaper

if TYPE_CHECKING:
    from bench.wire import WireProvider

CREATING = 500  # builds that are queued while a backlog dies
RATIO = 1.5  # CPU of a sweep against merely listing
PASS, SWEEP = 30, 300  # seconds, as `serve` does it
BYTES = 512  # that a sweep may keep of a thing it need not name
PAGES = 1.25  # peak memory of twice as many pages, against once
OWN = 105e-6  # CPU seconds a thing beside the listing: half of what botocore takes for a VM


class World:
    """A cloud with a ledger, a reaper and, when it is asked for, an engine; time stands still."""

    def __init__(
        self, root: Path, *, wire: bool = False, page: int = 100, disks: bool = True
    ) -> None:
        self.clock = Clock()
        self.cloud = Cloud(self.clock)
        self.cloud.disks = disks
        kind: type[FakeProvider] = _wire() if wire else FakeProvider
        self.provider = kind("fake", self.cloud, page_size=page)
        self.ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
        self.engine = Engine(
            self.ledger,
            {"fake": self.provider},
            engines.Session,
            EngineLimits(limits=Limits(max_instances=10**6)),
            process=process.current(),
            kind="bench",
            paths=engines.Paths(root, root, root / "wake"),
            orders=engines.orders(self.ledger),
            clock=self.clock,
            monotonic=self.clock,
            pool=lambda _name, _size: Inline(),
            spawn=lambda _name, work: work(),
            listen=False,
        )
        self.reaping = Reaper(self.engine.context, Membership(one_host=True), lambda: 0.0)

    def fill(self, machines: int, expired: int, *, rows: bool) -> None:
        """So many VMs, each with a disk if the cloud makes any; the first `expired` are past their
        deadline. Without `rows` they are an earlier database's: only their tags tell of them."""
        offer = self.provider.offers(Spec())[0]
        now, access = self.clock(), Access(user_private="k", host_public="h")
        for n in range(machines):
            order = Order(
                instance=ids.instance_id(),
                build=ids.build_id(),
                installation=self.ledger.installation,
                generation=self.ledger.generation if rows else "earlier",
                role=Role.BUILD,
                offer=offer,
                deadline=now + (30 if n < expired else 7200),
                user_data=b"",
            )
            if not rows:
                self.provider.create(order)
                continue
            build, _ = self.ledger.builds.submit(engines.spec(), id=order.build, now=now)
            row = Instance(
                id=order.instance,
                build=build.id,
                attempt=1,
                provider="fake",
                offer=offer,
                role=Role.BUILD,
                state=InstanceState.REQUESTED,
                created_at=now,
                state_since=now,
                deadline=order.deadline,
                epoch=0,
                owner="e-bench",
            )
            launch = LaunchRequest(
                build_id=build.id, seen_epoch=build.epoch, instance=row, order=order, access=access
            )
            ((_, row),) = self.ledger.instances.start([launch], until=now + 3600)
            ref = self.provider.create(order)
            self.ledger.instances.record([(row.id, row.epoch, ref)], now)
        self.clock.advance(60)

    def close(self) -> None:
        self.engine.close()
        self.ledger.close()


def _wire() -> type[WireProvider]:
    from bench.wire import WireProvider

    return WireProvider


class Row(NamedTuple):
    """One line of the table."""

    what: str
    got: str
    bound: str
    holds: bool


def cpu(work: Callable[[], object]) -> float:
    gc.collect()
    begun = time.process_time()
    work()
    return time.process_time() - begun


def listed(provider: FakeProvider) -> None:
    """Merely list, and keep nothing."""
    for _ in provider.sweep():
        pass


# --- calls and CPU -----------------------------------------------------------------------------


class Sweep(NamedTuple):
    listing: float
    sweep: float
    calls: int


def sweep(root: Path, things: int, expired: int, *, rows: bool, wire: bool, page: int) -> Sweep:
    """List the cloud, then sweep it: half of the things are VMs, half their disks."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        world = World(Path(name), wire=wire, page=page)
        world.fill(things // 2, expired // 2, rows=rows)
        if wire:
            world.provider.freeze()  # type: ignore[attr-defined]
        listing = cpu(lambda: listed(world.provider))
        world.cloud.counts.clear()
        spent = cpu(world.reaping.run)
        calls = world.cloud.counts.total()
        alive = sum(m.alive for m in world.cloud.things(Kind.INSTANCE))
        assert alive == things // 2 - expired // 2, "it did not do its work"
        world.close()
        return Sweep(listing, spent, calls)


def costs(root: Path, things: int, expired: int, pairs: int) -> list[Row]:
    found = []
    for where, wire, page in (("EC2's XML", True, 1000), ("the fake's memory", False, 100)):
        for what, rows in (("by tags alone", False), ("each VM with its row", True)):
            runs = [
                sweep(root, things, expired, rows=rows, wire=wire, page=page) for _ in range(pairs)
            ]
            calls = max(run.calls for run in runs)
            most = math.ceil(things / page) + math.ceil(expired / DELETE_BATCH)
            title = f"{where}, {what}"
            found.append(Row(f"calls: {title}", str(calls), f"{most}", calls <= most))
            listing = statistics.median(run.listing for run in runs)
            spent = statistics.median(run.sweep for run in runs)
            ratio = statistics.median(run.sweep / run.listing for run in runs)
            figures = f"{ratio:.2f}x ({spent:.2f} s / {listing:.2f} s)"
            if wire:
                found.append(Row(f"CPU: {title}", figures, f"{RATIO}x", ratio <= RATIO))
            else:
                own = statistics.median(run.sweep - run.listing for run in runs) / things
                holds = own <= OWN
                text = f"{own * 1e6:.0f} µs a thing; {figures}"
                found.append(Row(f"CPU: {title}", text, f"{OWN * 1e6:.0f} µs", holds))
    return found


# --- memory ------------------------------------------------------------------------------------


def peak(work: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def memory(root: Path, things: int, expired: int) -> list[Row]:
    """The peak of a sweep, of once and twice as many pages with as many that must die."""
    peaks, whole = [], 0.0
    for count in (things, 2 * things):
        with tempfile.TemporaryDirectory(dir=root) as name:
            world = World(Path(name), wire=True, page=1000)
            world.fill(count // 2, expired // 2, rows=False)
            world.provider.freeze()  # type: ignore[attr-defined]
            if not peaks:
                pages = world.provider.sweep()
                next(pages)  # what is loaded once is loaded
                tracemalloc.start()
                listing = list(pages)
                whole = tracemalloc.get_traced_memory()[0] / sum(len(p.resources) for p in listing)
                tracemalloc.stop()
            peaks.append(peak(world.reaping.run))
            world.close()
    ratio, grown = peaks[1] / peaks[0], (peaks[1] - peaks[0]) / things
    figures = f"{ratio:.2f}x ({peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB)"
    kept = f"{grown:.0f} bytes (a listing held whole: {whole:.0f})"
    return [
        Row("peak memory, twice the pages", figures, f"{PAGES}x", ratio <= PAGES),
        Row("memory of each further thing", kept, f"{BYTES} bytes", grown <= BYTES),
    ]


# --- a backlog under the limits ----------------------------------------------------------------


class Backlog(NamedTuple):
    seconds: float  # virtual, until the last is dying
    created: int  # VMs that were made meanwhile
    refused: dict[str, int]


def backlog(root: Path, machines: int, *, creating: int = 0) -> Backlog:
    """`machines` expired VMs of a lost ledger, a pass every 30 s, a sweep every 300 s, while an
    engine launches `creating` builds as fast as it may; each then ends and is deleted too."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        world = World(Path(name), page=1000, disks=False)
        world.cloud.delete_seconds = 30.0
        world.fill(machines, machines, rows=False)
        expired = list(world.cloud.things(Kind.INSTANCE))
        throttle = world.cloud.on_call = Throttle(world.cloud, EC2)
        for _ in range(creating):
            world.ledger.builds.submit(engines.spec(), id=ids.build_id(), now=world.clock())
        begun, second = world.clock(), 0
        while any(m.alive for m in expired):
            if second > 3600:
                break
            if second % PASS == 0:
                world.reaping.run(sweep=second % SWEEP == 0)
            if creating:
                world.engine.tick()
            world.clock.advance(1)
            second += 1
        made = sum(1 for _ in world.cloud.things(Kind.INSTANCE)) - machines
        taken = world.clock() - begun
        world.close()
        return Backlog(taken, made, dict(throttle.refused))


def floor(machines: int) -> float:
    """The fastest that the limits allow, in seconds."""
    burst, rate = next(q.items for methods, q in EC2.items() if "delete" in methods)  # type: ignore[misc]
    return max(0.0, machines - burst) / rate


def backlogs(root: Path, machines: int) -> list[Row]:
    alone = backlog(root, machines)
    least = floor(machines)
    most = 1.1 * least + 2 * PASS
    crowded = backlog(root, machines, creating=CREATING)
    rows = []
    for what, run in (("nothing else", alone), ("creates at their limit", crowded)):
        figures = f"{run.seconds:.0f} s (refused: {run.refused}; made: {run.created})"
        rows.append(
            Row(f"{machines} expired, {what}", figures, f"{most:.0f} s", run.seconds <= most)
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--resources", type=int, default=10_000)
    parser.add_argument("--expired", type=int, default=1_000)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the databases are made")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    table = Table("", "measured", "bound", "")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        root = Path(name)
        rows = costs(root, arguments.resources, arguments.expired, arguments.pairs)
        rows += memory(root, arguments.resources, arguments.expired)
        rows += backlogs(root, arguments.backlog)
    for row in rows:
        table.add_row(row.what, row.got, row.bound, "holds" if row.holds else "BROKEN")
    Console().print(table)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
