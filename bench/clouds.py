"""What the benches of the clouds share: an endpoint in a process of its own, builds through the
real engine, a comparison with a script, and the table."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from bench import engine as engines
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.engine.sessions import Sessions
from vmrunner.ledger import Ledger
from vmrunner.lib import ids, process
from vmrunner.lib.token_bucket import Limit
from vmrunner.model import Limits, Order, Result, Role, Spec
from vmrunner.providers import Provider
from vmrunner.providers.common.rate_limits import Buckets, Quota

CALLS, CPU, WALL = 1.1, 1.6, 1.2  # against the script, where answers come at once
SLOW_CPU, SLOW_WALL = 1.3, 1.0  # the same, where each takes what it takes in the world
CAPTION: Final = (
    "Builds: vmrunner / the script, which keeps no ledger and no limits on its calls (vmrunner's "
    "are opened wide). Under the ledger this disk alone does {syncs:.0f} fdatasync/s."
)
SUBMITTERS: Final = 16  # clients that submit at once
_OPEN: Final = Limit(1e9, 1e9)
_SPAWN: Final = multiprocessing.get_context("spawn")  # nothing of the client's is in it


# --- an endpoint in a process of its own: what it takes is not counted as its client's -----------


@dataclass(frozen=True)
class Endpoint:
    """The client's end of it. `site`: what is furnished there for a launch."""

    url: str
    site: Any
    pipe: Connection

    def counts(self) -> Counter[str]:
        """The requests since the last time, by action."""
        found: Counter[str] = self.ask("counts")
        return found

    def alive(self) -> list[str]:
        """The ids of all machines that bill."""
        found: list[str] = self.ask("alive")
        return found

    def ask(self, what: str) -> Any:
        self.pipe.send(what)
        return self.pipe.recv()


E = TypeVar("E", bound=Endpoint)


@contextmanager
def endpoint(kind: type[E], serve: Callable[[Connection], None]) -> Iterator[E]:
    """A fresh one. `serve`, a function of a module, is its process, and calls `answer`."""
    parent_end, child_end = _SPAWN.Pipe()
    child = _SPAWN.Process(target=serve, args=(child_end,), daemon=True)
    child.start()
    child_end.close()  # else its end would go unnoticed
    url, site = parent_end.recv()
    try:
        yield kind(url, site, parent_end)
    finally:
        parent_end.send("stop")
        child.join()


def answer(
    pipe: Connection, cloud: Any, site: Any, answers: Mapping[str, Callable[[], object]]
) -> None:
    """In the endpoint's process, until it is to end. `answers`: to `alive`, and to more."""
    pipe.send((cloud.url, site))
    while (question := pipe.recv()) != "stop":
        if question == "counts":
            counts = Counter(request.action for request in cloud.requests)
            cloud.requests.clear()
            pipe.send(counts)
        else:
            pipe.send(answers[question]())


# --- the two sides -------------------------------------------------------------------------------


class Spent(NamedTuple):
    """The costs of one side; `wall` and `cpu` in seconds."""

    wall: float
    cpu: float
    calls: Counter[str]


def spent(at: Endpoint, work: Callable[[], object]) -> Spent:
    at.counts()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = Spent(wall, cpu, at.counts())
    assert not at.alive()
    return found


def through_vmrunner(
    at: Endpoint,
    provider: Provider,
    installation: str,
    builds: int,
    directory: Path | None,
    sessions: Sessions = engines.Session,
) -> Spent:
    """From submit to seen dead. Clients submit side by side while the engine is at work."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        root = Path(place)
        url = f"sqlite:///{root}/ledger.db"
        ledger = Ledger.open(url, data_dir=root, installation=installation)
        spec = replace(engines.spec(), provider=provider.name)
        engine = Engine(
            ledger,
            {provider.name: provider},
            sessions,
            EngineLimits(limits=Limits(max_instances=builds)),
            process=process.current(),
            kind="bench",
            paths=engines.Paths(root, root, root / "wake"),
            orders=engines.orders(ledger),
        )

        provider.offers(spec)  # what is asked once is asked: the script did so for its orders

        def submit(_: int) -> None:
            ledger.builds.submit(spec, id=ids.build_id(), now=time.time())
            engine.wake()

        def work() -> None:
            with ThreadPoolExecutor(SUBMITTERS) as clients:
                submissions = [clients.submit(submit, number) for number in range(builds)]
                all_in = False

                def over() -> bool:
                    nonlocal all_in
                    before, all_in = all_in, all(each.done() for each in submissions)
                    return before and engine.idle  # of a tick that saw them all

                engine.run(over)
            for submission in submissions:
                submission.result()

        found = spent(at, work)
        assert all(build.result is Result.SUCCESS for build in ledger.builds.list())
        assert all(row.state == "gone" for row in ledger.instances.list())
        engine.close()
        ledger.close()
        return found


def order(provider: Provider, installation: str) -> Order:
    """One like the engine's."""
    return Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=installation,
        generation=ids.build_id(),
        role=Role.BUILD,
        offer=provider.offers(Spec())[0],
        deadline=float(int(time.time() + 3600)),
        user_data=b"#cloud-config\n" + b"x" * 2000,
    )


def unlimited(quotas: Mapping[str, Quota]) -> Buckets:
    """A script keeps no limits either."""
    return Buckets(dict.fromkeys(quotas, Quota(_OPEN)))


# --- the table -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the table. `holds` is None where nothing is promised. A time never fails a run:
    that is the machine's as much as ours."""

    what: str
    got: str
    bound: str = ""
    holds: bool | None = None
    time: bool = False


def compared(
    count: int,
    pairs: int,
    ours: Callable[[int], Spent],
    script: Callable[[int], Spent],
    *,
    cpu: float = CPU,
    wall: float | None = None,
) -> list[Row]:
    """So many builds on both sides, which take turns: medians. `cpu`, `wall`: their bounds."""
    script(4)  # what is loaded once is loaded
    ours(4)
    both = [(script(count), ours(count)) for _ in range(pairs)]
    rows = []
    for what, bound, unit, of in (
        ("API calls", CALLS, "", lambda side: float(side.calls.total())),
        ("CPU", cpu, " s", lambda side: side.cpu),
        ("wall time", wall, " s", lambda side: side.wall),
    ):
        pair = [(of(mine), of(theirs)) for theirs, mine in both]
        ratio = statistics.median(a / b for a, b in pair)
        mine, theirs = (statistics.median(side) for side in zip(*pair, strict=True))
        digits = 2 if unit else 0
        figures = f"{ratio:.2f}x ({mine:.{digits}f}{unit} / {theirs:.{digits}f}{unit})"
        holds = None if bound is None else ratio <= bound
        most = "" if bound is None else f"{bound}x"
        rows.append(Row(f"{count} builds: {what}", figures, most, holds, bool(unit)))
    return [*rows, Row("the calls of vmrunner", by_action(both[-1][1].calls))]


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The command line of a bench that compares builds."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the ledgers are made")
    logging.disable(logging.CRITICAL)
    return parser


def compare(
    doc: str | None,
    serve: Callable[..., None],
    provider: Callable[[Endpoint], Provider],
    script: Callable[..., Spent],
    installation: str,
) -> int:
    """A whole bench of builds alone; the exit code. `serve` and `script` take `latency` too: the
    seconds that each answer takes, and no processor."""
    parser = arguments(doc)
    parser.add_argument("--latency", type=float, nargs="*", default=[0.1, 0.5], metavar="SECONDS")
    options = parser.parse_args()

    def ours(builds: int, latency: float = 0.0) -> Spent:
        with endpoint(Endpoint, partial(serve, latency=latency)) as at:
            return through_vmrunner(at, provider(at), installation, builds, options.directory)

    def both(latency: float) -> list[Row]:
        sides = (partial(side, latency=latency) for side in (ours, script))
        cpu, wall = (SLOW_CPU, SLOW_WALL) if latency else (CPU, WALL)
        return compared(options.builds, options.pairs, *sides, cpu=cpu, wall=wall)

    rows = both(0.0)
    for latency in options.latency:
        rows += [
            row._replace(what=f"{row.what}, answers take {latency} s")
            for row in both(latency)
            if row.time
        ]
    return show(rows, options.directory)


def by_action(calls: Counter[str]) -> str:
    return "\n".join(f"{count} {action}" for action, count in calls.most_common())


def show(rows: Sequence[Row], directory: Path | None, caption: str = "") -> int:
    """Print them; the exit code."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        syncs = engines.disk(Path(place))
    text = " ".join([CAPTION.format(syncs=syncs), caption]).strip()
    table = Table("", "measured", "bound", "", caption=text)
    for row in rows:
        verdict = {True: "holds", False: "BROKEN", None: ""}[row.holds]
        table.add_row(row.what, row.got, row.bound, verdict)
    Console().print(table)
    return int(any(row.holds is False and not row.time for row in rows))
