"""A million builds a day, in a played world: what each part costs for a build, what waits, what the
ledger grows to.

    python bench/day.py [--hours 2] [--pace 1000000] [--nodes 4] [--live 10000] [--seed 1]
                        [--minutes M] [--statements]
    python bench/day.py --hours 72 --pace 100000 --live 1000

Real are the engines, the ledger on a PostgreSQL of its own, the reapers, the uploaders, retention
and the HTTP server; played are the clock, the cloud (three regions of two zones, with refusals and
lost VMs), the bucket and the guests (`bench/day_world.py`). A node is killed each hour, and the
database is stopped once. All runs in one thread in turn: CPU is counted for each part, and waits
are of the virtual clock, in which work takes no time. What is above the pace that the machine at
hand can play is no matter: `--minutes` ends the submissions after so many minutes of the wall, and
the rest is carried to its end. Figures of days 1, 30 and 90 are extrapolated from the rows of one
build before and after retention. Exit 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.day_load import DAY, Load
from bench.day_meter import STAND_INS, percentile
from bench.day_server import Server
from bench.day_world import World

#: Of these a build may cost so many milliseconds of CPU, in vmrunner's own processes.
BUILD_MS: Final = 8.0
TICK_MS, LIST_MS, WAIT_S = 50.0, 100.0, 2.0
NAMES: Final = ("survivors", "murders", "doubles", "forgotten")
_SIZES = """
SELECT relname, n.count, pg_total_relation_size(c.oid) FROM pg_class c, LATERAL (
  SELECT (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname),
    false, true, '')))[1]::text::bigint AS count) n
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_STATEMENTS = """
SELECT round(total_exec_time)::bigint, calls, rows, shared_blks_hit + shared_blks_read, query
FROM pg_stat_statements s, pg_database d
WHERE s.dbid = d.oid AND d.datname = current_database() ORDER BY 1 DESC LIMIT 25
"""


class Size(NamedTuple):
    """The ledger's rows and bytes, by table."""

    rows: Counter[str]
    size: Counter[str]


def size_of(url: str, *, dense: bool) -> Size:
    """`dense`: after a rewrite of all tables, as if nothing had ever been changed in them."""
    with psycopg.connect(url, autocommit=True) as connection:
        if dense:
            connection.execute("VACUUM FULL")
        found = connection.execute(_SIZES).fetchall()
    return Size(Counter({n: c for n, c, _ in found}), Counter({n: s for n, _, s in found}))


def waits(world: World) -> list[float]:
    """Seconds that each build waited longer than in a queue which gives each place that is free to
    the next one at once, while there is a database. Places are taken for as long as they really
    were."""
    question = (
        "SELECT b.created_at, min(i.created_at), sum(i.gone_at - i.created_at) "
        "FROM builds b JOIN instances i ON i.build = b.id GROUP BY b.id ORDER BY 1, b.id"
    )
    with psycopg.connect(world.url) as connection:
        found = connection.execute(question).fetchall()
    free_at = [0.0] * world.load.live
    late = []
    for submitted, started, held in found:
        start = max(float(submitted), free_at[0])
        if world.down_at <= start < world.up_at:
            start = world.up_at
        heapq.heapreplace(free_at, start + float(held))
        late.append(max(0.0, float(started) - start))
    return late


def play(world: World, hours: float, minutes: float) -> None:
    """All builds, from the first to the death of the last one's VM."""
    began, ends = time.monotonic(), time.monotonic() + 60 * minutes
    world.begin(hours=hours)
    shown = time.monotonic()

    def over() -> bool:
        nonlocal shown
        if time.monotonic() > ends:
            world.submitting = False
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            virtual = (world.clock() - world.began) / 3600
            standing = sum(m.alive for m in world.standing())
            tick = 1000 * percentile(world.meter.samples["tick"], 0.95)
            print(
                f"{shown - began:6.0f} s: {virtual:.2f} h, {len(world.submitted)} builds, "
                f"{standing} VMs, tick p95 {tick:.0f} ms, "
                f"{dict(world.broken_promises)}",
                file=sys.stderr,
                flush=True,
            )
        return not world.submitting and world.quiet()

    world.run(over)


def cpu_table(world: World, server_cpu: float) -> tuple[Table, float]:
    """CPU of each part for a build; and what it is in all without PostgreSQL."""
    count = len(world.submitted)
    table = Table("part", "own, CPU ms a build", "in the ledger", "transactions a build", "CPU s")
    parts = sorted({name for name, _ in world.meter.cpu} - set(STAND_INS) - {"lists"})
    total = 0.0
    for name in parts:
        own, ledger = (world.meter.cpu[name, inside] for inside in (False, True))
        builds = count
        if name == "server":  # a part of the builds came that way
            builds = -(-count // world.load.over_http)
        elif name == "submit":
            builds = count - -(-count // world.load.over_http)
        elif name != "retention":
            total += own + ledger
        builds = max(1, builds)
        table.add_row(
            name, f"{1000 * own / builds:.2f}", f"{1000 * ledger / builds:.2f}",
            f"{world.meter.transactions[name] / builds:.1f}", f"{own + ledger:.1f}",
        )  # fmt: skip
    table.add_row("PostgreSQL", f"{1000 * server_cpu / count:.2f}", "", "", f"{server_cpu:.1f}")
    table.add_row("(played: cloud, bucket, judges, guests)", "", "", "",
        f"{sum(world.meter.cpu[n, i] for n in STAND_INS for i in (False, True)):.1f}")  # fmt: skip
    return table, 1000 * total / count


def size_table(
    grown: Size, logged: Size, kept: Size, lasting: Size, empty: Size, load: Load, count: int
) -> Table:
    """Rows and bytes at the end of days 1, 30 and 90. A build has its log in the bucket for 30 days
    and its rows for 90; `lasting` is what stays of it for ever."""
    table = Table("table", "rows a build", "bytes a build", "of them after 30 days", "after 90")

    def each(size: Counter[str], name: str) -> float:
        return max(0, size[name] - empty.size[name]) / count

    for name in sorted(logged.rows, key=lambda n: -logged.size[n]):
        rows = (logged.rows[name] - empty.rows[name]) / count
        if rows >= 0.05:
            table.add_row(
                name, f"{rows:.2f}", f"{each(logged.size, name):.0f}",
                f"{each(kept.size, name):.0f}", f"{each(lasting.size, name):.0f}",
            )  # fmt: skip
    sums = [sum(each(size.size, n) for n in logged.rows) for size in (grown, logged, kept, lasting)]
    rows = [sum(size.rows.values()) - sum(empty.rows.values()) for size in (logged, kept, lasting)]
    table.add_row("all", f"{rows[0] / count:.1f}", *(f"{value:.0f}" for value in sums[1:]))
    table.add_section()
    for days in (1, 30, 90):
        young, old = min(days, 30), max(0, days - 30)
        builds = load.pace
        million = builds * (young * rows[0] + old * rows[1]) / count / 1e6
        gib = builds * (young * sums[1] + old * sums[2]) / 2**30
        table.add_row(f"day {days}", f"{million:.0f} M rows", f"{gib:.1f} GiB", "", "")
    table.add_row("as it grew, before a rewrite", "", f"{sums[0]:.0f} a build", "", "")
    return table


def goals(
    world: World, build_ms: float, wal: float, changes: float, late: Sequence[float]
) -> Table:
    table = Table("figure", "goal", "found")
    samples = world.meter.samples

    def line(what: str, goal: str, value: float, unit: str) -> None:
        table.add_row(what, goal, f"{value:.4g}{unit}")

    line("CPU of a build, without the database", f"≤ {BUILD_MS:g} ms", build_ms, " ms")
    for what, name, goal in (("tick", "tick", TICK_MS), ("GET /builds", "GET /builds", LIST_MS)):
        for kind in ("", ", CPU"):
            value = 1000 * percentile(samples[f"{name}{kind}"], 0.95)
            line(f"p95 of {what}{kind}", f"≤ {goal:g} ms", value, " ms")
    line("p95 of a wait beyond capacity", f"≤ {WAIT_S:g} s", percentile(list(late), 0.95), " s")
    line("the longest", "", max(late, default=0.0), " s")
    line("WAL of a build", "", wal / 1024, " KiB")
    line("changes of a build, one after the other is durable", "", changes, "")
    line("ticks a build", "", len(samples["tick"]) / len(world.submitted), "")
    for name in NAMES:
        line(name, "0", world.broken_promises[name], "")
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hours", type=float, default=2.0, help="of virtual time")
    parser.add_argument("--pace", type=float, default=1_000_000, help="builds a day")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--live", type=int, default=10_000, help="VMs at most")
    parser.add_argument("--lost", type=float, default=0.01, help="share of VMs")
    parser.add_argument("--over-http", type=int, default=20, help="each so many-th build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="of the wall, of submissions")
    parser.add_argument("--statements", action="store_true", help="which cost PostgreSQL most")
    chosen = parser.parse_args(arguments)
    load = Load(chosen.pace, chosen.live, chosen.lost, chosen.over_http)
    console = Console(width=110)
    fast = Path("/dev/shm")
    with (
        closing(Server(statements=chosen.statements)) as server,
        tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as name,
        closing(World(Path(name), server, load, chosen.nodes, chosen.seed)) as world,
    ):
        if chosen.statements:
            with psycopg.connect(world.url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION pg_stat_statements")
        empty, before = size_of(world.url, dense=False), server.cpu
        written = _written(world.url)
        play(world, chosen.hours, chosen.minutes)
        server_cpu = server.cpu - before
        count = len(world.submitted)
        wal, changes = (
            (now - was) / count for now, was in zip(_written(world.url), written, strict=True)
        )
        virtual = (world.clock() - world.began) / 3600
        world.count_forgotten()
        if chosen.statements:
            _tell_statements(world.url, count, console)
        late = waits(world)
        grown, logged = size_of(world.url, dense=False), size_of(world.url, dense=True)
        table, build_ms = cpu_table(world, server_cpu)
        peak = world.peak
        nights = []
        sizes = []
        for days in (31, 2, 60):
            world.clock.advance(days * DAY)
            began = time.process_time(), time.monotonic(), world.paused
            world.night(world.truth)
            nights.append((time.process_time() - began[0], time.monotonic() - began[1],
                world.paused - began[2]))  # fmt: skip
            sizes.append(size_of(world.url, dense=True))
        world.broken_promises["forgotten"] += len(world.store.objects)
    happened = ", ".join(f"{n} {what}" for what, n in sorted(world.happened.items()))
    print(
        f"{count} builds in {virtual:.2f} h of virtual time, {chosen.nodes} nodes, {peak} VMs at "
        f"the peak; seed {chosen.seed}",
        f"what befell them: {happened}",
        sep="\n",
        flush=True,
    )
    console.print(table, size_table(grown, logged, sizes[1], sizes[2], empty, load, count))
    for what, (cpu, wall, paused) in zip(
        ("logs let go of", "their objects", "rows and sums"), nights, strict=True
    ):
        console.print(
            f"retention, {what}: {1000 * cpu / count:.2f} ms of CPU a build, {wall:.1f} s, and "
            f"{paused:.1f} s of pauses"
        )
    console.print(goals(world, build_ms, wal, changes, late))
    for finding in world.findings[:20]:
        console.print(finding, soft_wrap=True)
    print(" ".join(f"{name}={world.broken_promises[name]}" for name in NAMES), flush=True)
    return int(any(world.broken_promises.values()))


def _written(url: str) -> tuple[int, int]:
    """Bytes of WAL, and numbers of the change counter: all changes take them in turn."""
    question = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, last FROM revisions"
    with psycopg.connect(url) as connection:
        row = connection.execute(question).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def _tell_statements(url: str, count: int, console: Console) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(_STATEMENTS).fetchall()
    for spent, calls, rows, blocks, text in found:
        console.print(
            f"{spent / count:7.3f} ms {calls / count:7.2f} calls {rows / count:8.2f} rows "
            f"{blocks / count:8.1f} pages a build: {' '.join(text.split())[:140]}",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
