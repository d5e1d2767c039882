"""A year of builds in a ledger, before and after retention: sizes, and how long the questions take
that people and programs ask.

    python bench/year.py [--days 365] [--builds 10000] [--postgres]

Time is simulated: the rows of a day are written at once, by SQL, as 10,000 builds would have left
them (a build, its VM, eight events, two labels; logs and artifacts are in the store and let go of
after 30 days). Retention goes by that clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.ledger_builds import launch, ref, submitted
from tests.support.postgres import running
from vmrunner.ledger import Ledger
from vmrunner.ledger.old_rows import OldRows
from vmrunner.model import Death, Reason, Result
from vmrunner.runtime.provider_set import ProviderSet
from vmrunner.services import costs

DAY = 86_400.0
KEEP, ROWS = 30 * DAY, 90 * DAY
_CHUNK = 20_000
PROVIDERS = cast("ProviderSet", SimpleNamespace(time_at=lambda *_: time.time()))


def template(ledger: Ledger) -> None:
    """One build as the ledger itself writes it, of which all others are copies."""
    submitted(ledger, "b-0", labels={"team": "t0", "ref": "main"})
    ledger.instances.start([launch(ledger, "b-0", "vm-0")], until=9)
    ledger.instances.record([("vm-0", 1, ref("i-0"))], 101.0)
    ended = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE, "death": Death.DONE}
    ledger.builds.finish("b-0", epoch=1, now=110.0, **ended)  # type: ignore[arg-type]
    ledger.instances.close("vm-0", epoch=2, death=Death.DONE, now=111.0)
    ledger.removals.remove("b-0", 112.0)
    set_rate = "UPDATE instances SET usd_hour = 0.1, price_source = 'cloud', price_at = 1"
    ledger._database.write(lambda c: c.execute(text(set_rate)))


def copies(connection: Connection, first: int, count: int, begin: float, step: float) -> None:
    """Write builds from number `first` on, one each `step` seconds. `:n` is a build's number."""
    series = (
        "WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last) "
        if connection.dialect.name == "sqlite"
        else "WITH s AS (SELECT generate_series(CAST(:first AS int), CAST(:last AS int)) AS n) "
    )
    names = {"id": "'{}' || substr(CAST(1000000000 + n AS text), 2)"}
    at = "(:begin + (n - :first) * :step)"
    build, vm = names["id"].format("b-"), names["id"].format("vm-")
    changed = {
        "builds": {
            "id": build, "instance": vm, "created_at": at, "state_since": f"{at} + 300",
            "finished_at": f"{at} + 300", "cost": "0.01", "removed_at": f"{at} + 400",
            "log_due": "NULL", "idempotency_key": "NULL",
        },
        "instances": {
            "id": vm, "build": build, "created_at": at, "state_since": f"{at} + 310",
            "gone_at": f"{at} + 310", "deadline": f"{at} + 900",
        },
        "events": {"build": build, "time": at},
        "labels": {
            "build": build,
            "value": "CASE WHEN x.name = 'team' THEN 't' || (n % 20) ELSE 'main' END",
        },
    }  # fmt: skip
    where = {"builds": "id = 'b-0'", "instances": "id = 'vm-0'"}
    for table, values in changed.items():
        found = connection.execute(text(f"SELECT * FROM {table} WHERE 1 = 0"))
        columns = [f'"{name}"' for name in found.keys()]  # noqa: SIM118
        chosen = [values.get(name.strip('"'), f"x.{name}") for name in columns]
        such = where.get(table, "build = 'b-0'")
        connection.execute(
            text(
                f"INSERT INTO {table} ({', '.join(columns)}) {series}"
                f"SELECT {', '.join(chosen)} FROM s, {table} x WHERE x.{such}"
            ),
            {"first": first, "last": first + count - 1, "begin": begin, "step": step},
        )


def fill(ledger: Ledger, days: int, builds: int, now: float) -> None:
    number, step = 1, DAY / builds
    begin = now - days * DAY
    total = days * builds
    while number <= total:
        count = min(_CHUNK, total - number + 1)
        at = begin + (number - 1) * step
        ledger._database.write(lambda c: copies(c, number, count, at, step))  # noqa: B023
        number += count


def size(ledger: Ledger) -> float:
    """The database's size in GiB."""
    if ledger._database.sqlite:
        return Path(ledger._database.url.database or "").stat().st_size / 2**30
    query = text("SELECT pg_database_size(current_database())")
    return float(ledger._database.read(lambda c: c.execute(query).scalar_one())) / 2**30


def ask_all(ledger: Ledger, last: str, title: str) -> dict[str, float]:
    """Seconds of each question, shown as they are found: a large ledger takes an hour."""
    taken = {}
    for name, work in questions(ledger, last).items():
        taken[name] = timed(work)
        print(f"{title}: {name}: {taken[name] * 1e3:.1f} ms", flush=True)
    return taken


@contextmanager
def shown(what: str) -> Iterator[list[object]]:
    """Print what a piece of work took, with the results that it puts in the list."""
    begin, cpu, results = time.monotonic(), time.process_time(), list[object]()
    yield results
    took = f"{time.monotonic() - begin:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
    print(f"{what} ({', '.join(map(str, results))}): {took}", flush=True)


def questions(ledger: Ledger, last: str) -> dict[str, Callable[[], object]]:
    def report(by: str, days: float) -> Callable[[], object]:
        return lambda: costs.report(ledger, PROVIDERS, by=by, since=days * DAY)

    return {
        "ps": lambda: ledger.builds.list(active=True),
        "ps -a (the newest 50)": lambda: ledger.builds.list(limit=50),
        "GET /builds?limit=100": lambda: ledger.builds.list(limit=100),
        "ps --label team=t3 (50)": lambda: ledger.builds.list(labels={"team": "t3"}, limit=50),
        "show": lambda: (
            ledger.builds.get(last), ledger.instances.of_builds([last]), ledger.events.list(last),
        ),
        "vm ls": ledger.instances.open,
        "costs (7 days)": report("provider", 7),
        "costs --by label:team (7 days)": report("label:team", 7),
        "costs --since 365d": report("provider", 365),
        "/metrics: builds": ledger.metrics.ended,
        "/metrics: costs": ledger.metrics.cost,
        "/metrics: deaths": ledger.metrics.deaths,
    }  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(2):
        begin = time.monotonic()
        work()
        best = min(best, time.monotonic() - begin)
        if best > 5:
            break
    return best


def nights(ledger: Ledger, now: float) -> tuple[int, int]:
    """Retain until nothing more goes. Return the number of builds and of nights."""
    count, rounds = 0, 0
    while went := OldRows(ledger._database).remove(now - ROWS, now, sleep=lambda _: None).count:
        count, rounds = count + went, rounds + 1
    return count, rounds


@contextmanager
def opened(*, postgres: bool) -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o700)
        if postgres:
            with running() as server:
                ledger = Ledger.open(server.new(), data_dir=root)
                yield ledger
                ledger.close()
        else:
            ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
            yield ledger
            ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--builds", type=int, default=10_000, help="a day")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    console = Console(width=110)
    now = time.time()
    with opened(postgres=options.postgres) as ledger:
        template(ledger)
        with shown("builds written") as results:
            fill(ledger, options.days, options.builds, now)
            results.append(options.days * options.builds)
        if options.postgres:
            ledger._database.write(lambda c: c.execute(text("ANALYZE")))
        last = f"b-{options.days * options.builds:09}"
        before = ask_all(ledger, last, "rows alone")
        with shown("VMs in sums of days") as results:
            results.append(ledger.settled_costs.add(now, sleep=lambda _: None))
        with_sums = ask_all(ledger, last, "with sums")
        grown = size(ledger)
        with shown("retention: builds, nights") as results:
            results += nights(ledger, now)
        if options.postgres:
            with ledger._database._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text("VACUUM ANALYZE"))
        with shown("the next night: builds, nights") as results:
            results += nights(ledger, now + DAY)
        after = ask_all(ledger, last, "after retention")
        table = Table("question", "rows alone, ms", "with sums of days, ms", "after retention, ms")
        for name in before:
            times = (before[name], with_sums[name], after[name])
            table.add_row(name, *(f"{duration * 1e3:.1f}" for duration in times))
        console.print(table)
        print(
            f"size: {grown:.2f} GiB before, {size(ledger):.2f} GiB after (its file does not shrink)"
        )


if __name__ == "__main__":
    main()
