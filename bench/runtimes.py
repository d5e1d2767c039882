"""What gVisor costs: the same work under runc as Docker has it, under runc with vmrunner's limits,
and under runsc with the same limits, in one VM, taking turns.

    .venv/bin/python bench/runtimes.py [--rounds 3]

Each turn is a container of its own in which one program does every kind of work and times it
itself; `start` is from `docker run` to that program's first line, by the VM's clock. Medians; the
ratios are to plain runc. The VM has one processor and no network. The image `gvisor` is made
when it is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.vm.home import wait_until
from tests.vm.qemu_fixture import GiB, Machine, image, make_provider
from vmrunner.guest import docker
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.model import Address
from vmrunner.session.ssh import client

IMAGE = "gvisor"
ROOM = 1400 << 20  # bytes that the container may use of the VM's 2 GiB
PLACE = "/var/lib/bench"

#: Runs in the container.
WORK = """
import hashlib, json, os, subprocess, time
print("up", flush=True)

def cpu():
    data = b"x" * 65536
    for _ in range(400):
        data = hashlib.sha256(data).digest() * 2048
    sum(i * i for i in range(600_000))

def syscalls():
    for _ in range(20_000):
        os.getppid()

def files(place):
    os.makedirs(place)
    for n in range(200):
        with open(f"{place}/{n}", "wb") as file:
            file.write(b"x" * 4096)
    for n in range(200):
        os.stat(f"{place}/{n}")
        with open(f"{place}/{n}", "rb") as file:
            file.read()
        os.unlink(f"{place}/{n}")
    os.rmdir(place)

def processes():
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)

kinds = {
    "processor: hashes, a loop": cpu,
    "20,000 system calls": syscalls,
    "200 files in /work": lambda: files("/work/f"),
    "200 files in the container's own /tmp": lambda: files("/tmp/f"),
    "20 processes": processes,
}
found = {}
for name, work in kinds.items():
    began = time.perf_counter()
    work()
    found[name] = time.perf_counter() - began
print(json.dumps(found))
"""

#: Runs in the VM: argv is a `docker run`.
TURN = """
import subprocess, sys, time
began = time.monotonic()
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True) as run:
    assert run.stdout.readline() == "up\\n"
    print(time.monotonic() - began)
    print(run.stdout.read())
sys.exit(run.returncode)
"""

#: What `vmrunner.guest.docker` asks for, in the words of `docker run`.
LIMITS = (
    "--cap-drop=ALL",
    *(f"--cap-add={name}" for name in docker.CAPABILITIES),
    "--security-opt=no-new-privileges",
    f"--pids-limit={docker.PROCESSES}",
    f"--memory={ROOM}",
    f"--memory-swap={ROOM}",
    f"--shm-size={ROOM // 4}",
    "--cpu-shares=512",
    "--oom-score-adj=500",
)
RUNTIMES = {
    "runc, plain": (),
    "runc, vmrunner's limits": LIMITS,
    "runsc, vmrunner's limits": ("--runtime=runsc", *LIMITS),
}


def turn(connection: client.Connection, flags: tuple[str, ...]) -> dict[str, float]:
    """Seconds of each kind of work."""
    argv = [
        *("docker", "run", "--rm", "--network=none", "--log-driver=none", *flags),
        *(f"--volume={PLACE}/work:/work", f"--volume={PLACE}/work.py:/work.py:ro"),
        *("debian:trixie", "python3", "/work.py"),
    ]
    done = connection.run(f"python3 {PLACE}/turn.py {' '.join(argv)}", timeout=900)
    if done.exit_code:
        raise SystemExit(f"{argv}: {done.complaint}")
    start, found = done.stdout.decode().split("\n", 1)
    return {"start": float(start), **json.loads(found)}


def measured(connection: client.Connection, rounds: int) -> dict[str, list[dict[str, float]]]:
    for name, text in (("work", WORK), ("turn", TURN)):
        command = f"mkdir -p {PLACE}/work; cat >{PLACE}/{name}.py"
        connection.stream(command, lambda _: None, stdin=[text.encode()])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNTIMES}
    for number in range(rounds + 1):
        for name, flags in RUNTIMES.items():
            times = turn(connection, flags)
            print(name, {kind: round(seconds, 2) for kind, seconds in times.items()}, flush=True)
            if number:  # the first warms caches, and Docker
                found[name].append(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    made = image(IMAGE)
    cache = made.directory.parent.parent
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        provider = make_provider(root, cache=cache, image=made.hash, memory=2 * GiB)
        machine = Machine.order_one(provider, root, ttl=3600)
        provider.create(machine.order)

        def address() -> Address | None:
            seen = machine.look()
            return seen.address if seen else None

        try:
            found_at = wait_until(address, seconds=60, what="an address")
            connection = client.Dialer(machine.access, channel=UNIX_SOCKET).connect(
                found_at, timeout=300
            )
            found = measured(connection, rounds)
            connection.close()
        finally:
            provider.delete([machine.ref])
            machine.wait_dead(120)
    show(found, rounds)


def show(found: dict[str, list[dict[str, float]]], rounds: int) -> None:
    table = Table(title=f"medians of {rounds}, seconds; in brackets the ratio to plain runc")
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    plain = next(iter(found.values()))
    for kind in plain[0]:
        base = statistics.median(times[kind] for times in plain)
        cells = []
        for turns in found.values():
            middle = statistics.median(times[kind] for times in turns)
            cells.append(f"{middle:.3f} ({middle / base:.1f})")
        table.add_row(kind, *cells)
    console = Console()
    console.print(table)
    console.print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
