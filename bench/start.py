"""Submit → first line of a build's output: cold, resumed and hot, beside the floors of the latter.

Resumed is measured twice: from a process that is there, as a program's or `serve`'s, and as a
command with a new ledger, whose start counts too, as it does for cold. The floor is what a person
would do by hand with the same template: start QEMU on a fresh overlay, load the state, hand the VM
its identity, then one `ssh … echo`. Hot is a build whose VM waits in a pool, as in `bench/hot.py`;
its floor is a command over an SSH connection that is open already. All take turns in one run, each
once that pool is full again: its VMs wait beside all others.

    .venv/bin/python bench/start.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import hot
from bench.first_line import first_line
from vmrunner import Runner
from vmrunner.images import templates as making
from vmrunner.images.template_vms import TemplateVms
from vmrunner.ledger import Ledger
from vmrunner.model import Network, Order, Shape, Spec, Start
from vmrunner.providers import qemu
from vmrunner.providers.qemu import launch_plan, seed, templates
from vmrunner.providers.qemu.command_line import SSH_PORT, QemuFd, QemuStart
from vmrunner.providers.qemu.identity_port import IdentityPort
from vmrunner.providers.qemu.launch_plan import VmPlan
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.providers.qemu.qmp import Qmp
from vmrunner.providers.qemu.templates import Template

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vmrunner"
SHAPE = Shape(container="debian:trixie", runtime="runc", log_bytes=64 << 20)
SPEC = Spec(network=Network.NONE)
RESUMED_GOAL, COLD_GOAL = 1.5, 8.0


def by_hand(place: Path, vm: VmPlan, template: Template, order: Order) -> float:
    """Seconds until the output of one `ssh`, of a clone without jail and keeper. Keys are made
    before the clock starts."""
    assert order.identity is not None
    for name in ("user", "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True
        )
    host = (place / "host.pub").read_text()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{SSH_PORT} {host}")
    (place / "seed").write_bytes(seed.shape(None))
    identity = {
        "hostname": order.instance,
        "user_key": (place / "user.pub").read_text(),
        "host_key": (place / "host").read_text(),
        "host_public": host,
        "deadline": time.time() + 600,
        "network": "none",
    }
    ssh = [
        *("ssh", "-F", "none", "-i", str(place / "user"), "-p", str(SSH_PORT)),
        *("-o", f"UserKnownHostsFile={place / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "root@127.0.0.1", "echo", "hello"),
    ]
    began = time.monotonic()
    overlay = place / "disk.qcow2"
    made = launch_plan.overlay(vm.programs.qemu_img, template.disk, overlay, order.offer.disk)
    subprocess.run(made, check=True)
    channel, channel_there = socket.socketpair()
    qmp, qmp_there = socket.socketpair()
    given = {
        QemuFd.OVERLAY: os.open(overlay, os.O_RDWR),
        QemuFd.BASE: os.open(vm.image.disk, os.O_RDONLY),
        QemuFd.SEED: os.open(place / "seed", os.O_RDONLY),
        QemuFd.KERNEL: os.open(vm.image.kernel, os.O_RDONLY),
        QemuFd.INITRD: os.open(vm.image.initrd, os.O_RDONLY),
        QemuFd.RAM: os.open(template.ram, os.O_RDONLY),
        QemuFd.STATE: os.open(template.state, os.O_RDONLY),
        QemuFd.TEMPLATE: os.open(template.disk, os.O_RDONLY),
        QemuFd.CHANNEL: channel_there.fileno(),
        QemuFd.QMP: qmp_there.fileno(),
    }

    def place_descriptors() -> None:
        for number, descriptor in given.items():
            os.dup2(descriptor, number)

    machine = subprocess.Popen(
        vm.words(QemuStart.RESUME, "by-hand"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=place_descriptors,
    )
    try:
        Qmp(qmp, seconds=30).resume()
        IdentityPort(channel).tell(identity, now=time.time(), woken=True)
        channel.setblocking(True)
        channel.recv(64)
        while time.monotonic() - began < 120:
            done = subprocess.run(ssh, capture_output=True, check=False, stdin=subprocess.DEVNULL)
            if done.stdout == b"hello\n":
                return time.monotonic() - began
        raise SystemExit(f"by hand: no answer\n{done.stderr.decode()}")
    finally:
        machine.kill()
        machine.wait()
        for descriptor in list(given.values())[:-2]:
            os.close(descriptor)
        for end in (channel, channel_there, qmp, qmp_there):
            end.close()


def resumed(runner: Runner) -> float:
    seen: list[float] = []
    began = time.monotonic()
    build = runner.run(
        "echo hello", network="none", on_log=lambda _: seen.append(time.monotonic() - began)
    )
    start = runner.app.ledger.instances.get(build.instance or "").start
    if start is not Start.RESUMED:
        raise SystemExit(f"{build.id} started {start}, not resumed")
    return seen[0]


def resumed_at(place: Path, runner: Runner) -> float:
    with hot.home(place):
        return resumed(runner)


def template_of(provider: QemuProvider, place: Path) -> tuple[VmPlan, Template, Order]:
    """Its template, made if need be; `place`: of a ledger for its VMs."""
    ledger = Ledger.open(f"sqlite:///{place}/ledger.db", data_dir=place)
    vms = TemplateVms(ledger, provider, "bench")
    making.make(provider, SPEC, SHAPE, vms=vms)
    order, _ = making.order_for(provider, SPEC, SHAPE, vms)
    ledger.close()
    vm = provider.plan(order)
    key = vm.template_key()
    found = templates.find(CACHE, key, provider.verified) if key else None
    if found is None:
        raise SystemExit("there is no template")
    return vm, found, order


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the pool ends with us
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmrunner-bench-"))
        provider = qemu.open(
            "bench", state_dir=Path(scratch) / "state", cache_dir=CACHE, installation="bench"
        )
        vm, template, order = template_of(provider, Path(scratch) / "templates")
        own, pool = Path(scratch) / "own", Path(scratch) / "pool"
        own.mkdir()
        pool.mkdir()
        stack.enter_context(hot.home(own))
        runner = stack.enter_context(Runner())
        resumed(runner)  # it makes the ledger
        stack.enter_context(hot.serving(pool, hot.PROVIDER + hot.POOL))  # as all others here
        pooled = stack.enter_context(Runner())
        echo = stack.enter_context(hot.reused(pooled))
        ways: dict[str, Callable[[Path], float]] = {
            "hot": lambda _: hot.hot(pooled),
            "reused ssh": lambda _: echo(),
            "resumed": lambda _: resumed_at(own, runner),
            "resumed by a command": lambda place: first_line(place, templates=True),
            "by hand": lambda place: by_hand(place, vm, template, order),
            "cold": lambda place: first_line(place, templates=False),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name, run in ways.items():
                place = Path(scratch) / f"{name.replace(' ', '-')}-{turn}"
                place.mkdir()
                hot.settle(pooled)
                times[name].append(run(place))
                print(f"{turn + 1}/{rounds} {name}: {times[name][-1]:.3f} s", file=sys.stderr)
    show(times)
    return 0


def show(times: dict[str, list[float]]) -> None:
    table = Table(title="submit → first line", title_justify="left")
    for name in ("start", "p50 s", "p95 s", "by hand ×", "reused ssh ×", "cold ÷"):
        table.add_column(name, justify="left" if name == "start" else "right")
    resume, echo, cold = (
        statistics.median(times[name]) for name in ("by hand", "reused ssh", "cold")
    )
    for name, found in times.items():
        middle, high = hot.middle_and_high(found)
        table.add_row(
            name,
            f"{middle:.3f}",
            f"{high:.3f}",
            f"{middle / resume:.2f}",
            f"{middle / echo:.2f}",
            f"{cold / middle:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"goals: resumed ≤ {RESUMED_GOAL} × by hand, cold ≥ {COLD_GOAL} × resumed, and "
        f"hot ≤ {hot.GOAL} × a reused ssh"
    )


if __name__ == "__main__":
    sys.exit(main())
