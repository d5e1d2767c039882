"""What an SSH command costs, beside the plain `ssh` program, on a local sshd.

    python bench/ssh.py [--pairs 20] [--idle 1000]

Fresh: connect, log in, run `true`, close; beside a new `ssh`. Reused: `true` on an open connection;
beside `ssh` through a ControlMaster. Pairs are interleaved and medians compared. Then so many idle
commands in one process, each on a connection of its own: what they take of memory, threads and CPU
while nothing is said. Memory and CPU are this process's; the sshd's are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.sshd import Sshd, running
from vmrunner.session.ssh import client

QUIET = 20.0  # seconds over which the idle ones are watched
LEFT = 120  # seconds that their commands wait: sshd leaves them behind


class Plain:
    """The `ssh` program, with the same key and host key."""

    def __init__(self, sshd: Sshd, directory: Path) -> None:
        key, known_hosts = directory / "key", directory / "known"
        key.touch(0o600)
        key.write_text(sshd.access.user_private)
        known_hosts.write_text(
            f"[{sshd.address.host}]:{sshd.address.port} {sshd.access.host_public}\n"
        )
        where = ["-p", str(sshd.address.port), f"{sshd.user}@{sshd.address.host}"]
        self._fresh = [
            "ssh",
            "-F",
            "none",
            "-i",
            str(key),
            "-o",
            f"UserKnownHostsFile={known_hosts}",
        ]
        self._where = where
        self._control = ["-o", f"ControlPath={directory}/control"]

    def fresh(self) -> None:
        subprocess.run([*self._fresh, *self._where, "true"], check=True)

    def open(self) -> None:
        master = [*self._fresh, *self._control, "-o", "ControlMaster=yes", "-fN", *self._where]
        subprocess.run(master, check=True)

    def reused(self) -> None:
        subprocess.run([*self._fresh, *self._control, *self._where, "true"], check=True)

    def close(self) -> None:
        argv = [*self._fresh, *self._control, "-O", "exit", *self._where]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)


def connect(sshd: Sshd) -> client.Connection:
    return client.Dialer(sshd.access, user=sshd.user).connect(sshd.address, timeout=60)


def fresh(sshd: Sshd) -> None:
    connection = connect(sshd)
    assert connection.run("true").exit_code == 0
    connection.close()


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def compare(sshd: Sshd, directory: Path, pairs: int) -> dict[str, list[float]]:
    plain = Plain(sshd, directory)
    connection = connect(sshd)
    plain.open()
    times: dict[str, list[float]] = {}
    for _ in range(pairs + 1):
        for name, work in (
            ("fresh: ssh", plain.fresh),
            ("fresh: vmrunner", lambda: fresh(sshd)),
            ("reused: ssh, ControlMaster", plain.reused),
            ("reused: vmrunner", lambda: connection.run("true")),
        ):
            times.setdefault(name, []).append(milliseconds(work))
    plain.close()
    connection.close()
    return {name: found[1:] for name, found in times.items()}  # the first warms caches


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def idle(sshd: Sshd, count: int) -> str:
    """`count` commands that wait, each as a session waits: a thread in `stream`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connect(sshd).close()
    memory, threads, begun = resident(), threading.active_count(), time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        connections = list(pool.map(lambda _: connect(sshd), range(count)))
    started = threading.Semaphore(0)

    def wait(connection: client.Connection) -> None:
        with suppress(client.ConnectionLost):  # closed under it, in the end
            connection.stream(f"echo; exec sleep {LEFT}", lambda _: started.release())

    waiting = [threading.Thread(target=wait, args=(connection,)) for connection in connections]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        started.acquire()
    seconds = time.perf_counter() - begun
    memory, threads = resident() - memory, threading.active_count() - threads
    used, begun = cpu(), time.perf_counter()
    time.sleep(QUIET)
    used, watched = cpu() - used, time.perf_counter() - begun
    for connection in connections:
        connection.close()
    for thread in waiting:
        thread.join()
    return (
        f"{count} idle: up in {seconds:.1f} s, {memory / count:.3f} MiB and {threads / count:.1f} "
        f"threads each; quiet, all together use {used / watched * 100:.1f} % of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--idle", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with running(root) as sshd:
            times = compare(sshd, root, options.pairs)
            quiet = idle(sshd, options.idle)
    table = Table(title=f"median of {options.pairs} interleaved")
    for column in ("", "ms", "spread", "× ssh"):
        table.add_column(column, justify="right" if column else "left")
    base = 0.0
    for what, found in times.items():
        middle = statistics.median(found)
        base = middle if "vmrunner" not in what else base
        spread = f"{min(found):.1f}–{max(found):.1f}"
        table.add_row(what, f"{middle:.1f}", spread, f"{middle / base:.2f}")
    console = Console()
    console.print(table)
    console.print(quiet)
    console.print(f"load {os.getloadavg()[0]:.1f}")
    console.print(json.dumps({k: [round(x, 1) for x in v] for k, v in times.items()}))


if __name__ == "__main__":
    main()
