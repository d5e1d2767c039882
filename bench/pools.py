"""A week of builds against pools of several sizes: who waits how long, and what idling costs.

    python bench/pools.py [--days 7] [--trace FILE] [--only PATTERN]

A trace: `git log --format=%ct` of any repository, say, whose pushes are builds.

The real engine, ledger (SQLite) and reaper on the cloud in memory, whose clock is played. A VM
takes `--boot` seconds to come up and costs `--usd-hour`; a build runs `--build` seconds. Wait is
from the submission to the first step. Idle USD is what VMs cost before a build had them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import pool_arrivals as arrivals
from tests.faults.world import LIMITS, World, make_template
from vmrunner.core import pricing
from vmrunner.model import BuildState, PoolSpec

DAY = 86400.0
LATE = (BuildState.RUNNING, BuildState.COLLECTING)
RUNNING = 15.0  # seconds between ticks while no caller waits for one
POOL = PoolSpec(name="fast", provider="fake", container="c", size=0, ttl=1800.0, idle=1800.0)
WORKING = (("0 8 * * 1-5", 4), ("0 20 * * *", 1))
DEMAND = {"size": None, "hit_rate": 0.95, "least": 0, "most": 20}
SIZES: Mapping[str, Mapping[str, Any] | None] = {
    "no pool": None,
    "size 1": {"size": 1},
    "size 4": {"size": 4},
    "size 8": {"size": 8},
    "schedule 4/1": {"size": None, "schedule": WORKING},
    "demand 0.95": DEMAND,
}


def patterns(days: float) -> dict[str, list[float]]:
    span = {"seconds": days * DAY}
    return {
        "Poisson, 12 an hour": arrivals.poisson(12, seed=1, **span),
        "bursts of 6, 2 an hour": arrivals.bursts(2, 6, seed=2, **span),
        "30 an hour by day, a lull at night": arrivals.nightly_lull(30, seed=3, **span),
    }


class Week:
    """One week of arrivals at one size."""

    def __init__(self, root: Path, template: Path, spec: PoolSpec | None, args: Any) -> None:
        limits = replace(LIMITS, max_ttl=4 * 3600.0, newborn=900.0, booting=900.0)
        self.world = World(
            template, root, limits=limits, max_instances=500, pass_seconds=300.0,
            sweep_seconds=1800.0,
        )  # fmt: skip
        self.world.cloud.boot_seconds = args.boot
        self.world.build_seconds = args.build
        self.args = args
        self.node = self.world.node(pools={} if spec is None else {"fast": spec})
        for provider in self.node.engine.context.providers.values():
            provider._part.usd_hour = args.usd_hour

    def run(self, times: Sequence[float]) -> None:
        """Ticks come when something is due: each few seconds while a build waits or a VM comes up,
        seldom while builds only run, else each minute."""
        world, clock = self.world, self.world.clock
        start = clock()
        first = arrivals.MONDAY
        clock.advance((first - start) % (7 * DAY))  # a Monday, so that schedules mean something
        offset = clock() - first
        waiting = [at + offset for at in times]
        end = clock() + self.args.days * DAY
        n = 0
        while clock() < end or world.truth.builds.driven() or world.truth.builds.queued(1):
            while n < len(waiting) and waiting[n] <= clock():
                world.submit(ttl=1800.0, timeout=1700)
                n += 1
            self.node.tick()
            if self._waited_for():
                step = self.args.step
            else:
                step = 60.0 if self.node.engine.idle else RUNNING
            if n < len(waiting):
                step = min(step, max(0.5, waiting[n] - clock()))
            clock.advance(step)

    def _waited_for(self) -> bool:
        truth = self.world.truth
        rows, builds = truth.instances.open(), truth.builds.driven()
        return bool(
            any(row.state.value in ("requested", "booting") for row in rows)
            or any(build.state not in LATE for build in builds)
            or truth.builds.queued(1)
        )

    def result(self) -> tuple[int, float, float, float, float]:
        """Builds, hit rate, p50 and p95 of the wait in seconds, idle USD."""
        truth, now = self.world.truth, self.world.clock()
        builds = truth.builds.list(limit=10**6)
        waits = []
        for build in builds:
            began = {phase.state.value: phase.started for phase in build.phases}
            waits.append(began["running"] - build.created_at)
        waits.sort()
        rows = truth.instances.list(limit=10**6)
        idle = sum(pricing.idle_cost(row, 0.0, now) for row in rows)
        hits = sum(row.pool is not None and row.build is not None for row in rows)
        return len(builds), hits / len(builds), _share(waits, 0.5), _share(waits, 0.95), idle

    def close(self) -> None:
        self.world.close()


def _share(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--boot", type=float, default=40.0)
    parser.add_argument("--build", type=float, default=120.0)
    parser.add_argument("--step", type=float, default=3.0)
    parser.add_argument("--usd-hour", type=float, default=0.10)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    console = Console()
    found = patterns(args.days)
    if args.trace:
        with args.trace.open() as lines:
            times = arrivals.trace(lines)
        shift = (times[0] - arrivals.MONDAY) // (7 * DAY) * (7 * DAY)  # days of the week stay
        found = {args.trace.name: [at - shift for at in times]}
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as name:
        template = make_template(Path(name) / "template")
        for pattern, times in found.items():
            if args.only and args.only not in pattern:
                continue
            table = Table(title=f"{pattern}: {len(times)} builds in {args.days:g} days")
            for column in ("size", "hit rate", "wait p50", "wait p95", "idle USD", "took"):
                table.add_column(column, justify="left" if column == "size" else "right")
            for size, changes in SIZES.items():
                root = Path(name) / "world"
                root.mkdir()
                began = time.monotonic()
                spec = None if changes is None else replace(POOL, **changes)
                week = Week(root, template, spec, args)
                week.run(times)
                _, hits, p50, p95, idle = week.result()
                week.close()
                shutil.rmtree(root)
                table.add_row(
                    size, f"{hits:.1%}", f"{p50:.0f} s", f"{p95:.0f} s", f"{idle:.2f}",
                    f"{time.monotonic() - began:.0f} s",
                )  # fmt: skip
            console.print(table)


if __name__ == "__main__":
    main()
