"""Submit → first line of a build whose VM waits in a pool, and `Sandbox.create` → ready of a
sandbox, beside a reused SSH connection's `echo`; and the claim by itself.

    .venv/bin/python bench/hot.py [--rounds 20]

`bench/start.py` plays hot builds and this floor too, in turns with cold and resumed ones.

A `vmrunner serve` of its own fills the pool. The floor is one command over an SSH connection that
is open already, to a VM of the same kind on which nothing else runs. Both take turns. A build is
submitted once the pool is full again and the machine is quiet.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

VMRUNNER = Path(sys.prefix) / "bin" / "vmrunner"
POOL_SIZE = 2
#: Small VMs: a host takes as many as its disk and memory could hold if each filled its own.
PROVIDER = """
[providers.local]
kind = "qemu"
max_instances = 20
disk = "8GiB"
memory = "1GiB"
"""
POOL = f"""
[pools.fast]
network = "none"
size = {POOL_SIZE}
ttl = "150m"
idle = "1h"
"""
CONFIG = PROVIDER + "cpus = 1" + POOL
GOAL, CLAIM_P50, CLAIM_P99 = 1.2, 2.0, 10.0
CLAIMS = 500


@contextmanager
def home(place: Path) -> Iterator[None]:
    """A ledger and a configuration of one's own, in this directory."""
    variables = {"XDG_DATA_HOME": str(place / "data"), "XDG_CONFIG_HOME": str(place / "config")}
    former = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        with chdir(place):
            yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def serving(place: Path, config: str = CONFIG) -> Iterator[None]:
    (place / "config/vmrunner").mkdir(parents=True, mode=0o700)
    (place / "config/vmrunner/config.toml").write_text(config)
    with home(place), (place / "serve.log").open("wb") as log:
        server = subprocess.Popen([VMRUNNER, "serve"], stdout=log, stderr=log)
        try:
            until(_served, "the engine to serve")
            yield
        finally:
            subprocess.run([VMRUNNER, "pool", "drain", "fast"], check=False)
            for row in (name for name in _running() if name.startswith("b-")):
                subprocess.run([VMRUNNER, "cancel", row], check=False, capture_output=True)
            until(lambda: not _running(), "the builds to end")
            server.send_signal(signal.SIGTERM)
            server.wait()
            subprocess.run([VMRUNNER, "reap", "-q"], check=False)


def _served() -> bool:
    """True once a build finds that engine: else its own would serve it, over a new connection."""
    from vmrunner import Runner
    from vmrunner.runtime.background import served

    with Runner() as runner:
        return served(runner.app.ledger, ["local"], staying=True)


def _running() -> list[str]:
    from vmrunner import Runner

    with Runner() as runner:
        ledger = runner.app.ledger
        active = [build.id for build in ledger.builds.list(active=True)]
        return active or [row.id for row in ledger.instances.open()]


def until(true: Callable[[], Any], what: str, seconds: float = 600) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(0.5)
    return found


def waiting(runner: Any) -> int:
    rows = runner.app.ledger.instances.open()
    return sum(row.build is None and row.state.value == "ready" for row in rows)


def settle(runner: Any) -> None:
    """Wait until the pool is full, and what was made for it has calmed down."""
    until(lambda: waiting(runner) == POOL_SIZE, "the pool to be full")
    time.sleep(3)


def hot(runner: Any) -> float:
    seen: list[float] = []
    began = time.monotonic()
    build = runner.run(
        "echo hello", network="none", timeout="5m",
        on_log=lambda _: seen.append(time.monotonic() - began),
    )  # fmt: skip
    start = runner.app.ledger.instances.get(build.instance).start
    if start is None or start.value != "hot":
        raise SystemExit(f"{build.id} started {start}, not hot")
    return seen[0]


def hot_sandbox(runner: Any) -> float:
    from vmrunner import Sandbox

    began = time.monotonic()
    with Sandbox.create(network="none", ttl="5m", runner=runner) as sandbox:
        seconds = time.monotonic() - began
        start = runner.app.ledger.instances.get(sandbox.info().instance).start
    if start is None or start.value != "hot":
        raise SystemExit(f"{sandbox.id} started {start}, not hot")
    return seconds


def middle_and_high(found: list[float]) -> tuple[float, float]:
    """The median, and what 95 % do not pass."""
    return statistics.median(found), sorted(found)[min(len(found) - 1, int(0.95 * len(found)))]


@contextmanager
def reused(runner: Any) -> Iterator[Callable[[], float]]:
    """One command over a connection that is open already."""
    from vmrunner.lib.channels import UNIX_SOCKET
    from vmrunner.session.ssh.client import Dialer

    build = runner.submit("sleep 100000", network="none", timeout="145m", ttl="149m")
    ledger = runner.app.ledger
    until(lambda: ledger.builds.get(build.id).state.value == "running", "the VM of the floor")
    row = ledger.instances.get(ledger.builds.get(build.id).instance)
    dialer = Dialer(ledger.instances.access(row.id), channel=UNIX_SOCKET)
    connection = dialer.connect(row.address, timeout=60)

    def echo() -> float:
        began = time.monotonic()
        done = connection.run("echo hello")
        assert done.stdout == b"hello\n"
        return time.monotonic() - began

    yield echo
    connection.close()


def claims() -> list[float]:
    """Seconds that a claim takes, each of a VM and a build of its own, on SQLite."""
    from tests.support.ledger_builds import submitted
    from tests.support.pools import waiting as wait_in_pool
    from vmrunner.ledger import Ledger

    found = []
    with tempfile.TemporaryDirectory(prefix="vmrunner-bench-") as name:
        ledger = Ledger.open(f"sqlite:///{name}/ledger.db", data_dir=Path(name))
        for n in range(CLAIMS):
            build = submitted(ledger, f"b-{n:04}")
            row = wait_in_pool(ledger, f"vm-{n:04}")
            began = time.monotonic()
            won = ledger.pools.claim(
                build,
                row,
                generation=ledger.generation,
                owner="e-2",
                until=1e9,
                started=200.0,
                now=200.0,
            )
            found.append(time.monotonic() - began)
            assert won is not None
        ledger.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    from vmrunner import Runner

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the pool ends with us
    times: dict[str, list[float]] = {"hot": [], "hot sandbox": [], "reused ssh": []}
    with (
        tempfile.TemporaryDirectory(prefix="vmrunner-bench-") as name,
        serving(Path(name)),
        Runner() as runner,
        reused(runner) as echo,
    ):
        for turn in range(rounds):
            works = {"hot": hot, "hot sandbox": hot_sandbox, "reused ssh": lambda _: echo()}
            for way, work in works.items():
                settle(runner)
                times[way].append(work(runner))
            shown = ", ".join(f"{way} {found[-1]:.3f} s" for way, found in times.items())
            print(f"{turn + 1}/{rounds} {shown}", file=sys.stderr)
    table = Table(title="submit → first line", title_justify="left")
    for column in ("start", "p50 s", "p95 s", "of a reused ssh"):
        table.add_column(column, justify="left" if column == "start" else "right")
    floor = statistics.median(times["reused ssh"])
    for way, found in times.items():
        middle, high = middle_and_high(found)
        table.add_row(way, f"{middle:.3f}", f"{high:.3f}", f"{middle / floor:.2f}×")
    console = Console()
    console.print(table)
    milliseconds = sorted(second * 1000 for second in claims())
    console.print(
        f"the claim alone, of {CLAIMS}: p50 {milliseconds[CLAIMS // 2]:.2f} ms, "
        f"p99 {milliseconds[int(CLAIMS * 0.99)]:.2f} ms"
    )
    console.print(
        f"goals: hot ≤ {GOAL} × a reused ssh; a claim ≤ {CLAIM_P50} ms p50, ≤ {CLAIM_P99} ms p99"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
